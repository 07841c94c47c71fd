"""A new bundle proves itself before it serves: in the helper where one runs, so that requests do not wait meanwhile."""

import hashlib
import json
from collections.abc import Callable

import msgspec

from quant.bundle import Bundle, BundleError
from resources.registry import Registry
from serving.helper import Helper
from serving.logs import log

PATIENCE = 120.0  # seconds that the helper gets for one proof


class Proof(msgspec.Struct):
    """What became of one. fingerprint: of what was proved; problem: why it is refused."""

    fingerprint: str = ""
    problem: str | None = None


def prove(registry: Registry, horizon: str, id: str) -> Bundle:
    """Load a bundle, replay its golden data from bars to predictions, and ask it once."""
    bundle = registry.load(horizon, id)
    bundle.verify()
    bundle.warm()
    return bundle


def fingerprint(bundle: Bundle) -> str:
    """SHA-256 of all that decides its answers: what one process proved is what another has loaded."""
    told = hashlib.sha256(json.dumps(bundle.manifest, sort_keys=True).encode())
    told.update(bundle.text.encode())
    told.update(bundle.forest.dumps())
    return told.hexdigest()


class Prover:
    """Gives bundles that have proved themselves. On the loader thread.

    helper: gives the one that runs, None where none does.
    """

    def __init__(self, registry: Registry, helper: Callable[[], Helper | None]) -> None:
        self._registry = registry
        self._helper = helper

    def proved(self, horizon: str, id: str, like: Bundle | None) -> Bundle:
        """The bundle, ready to answer; BundleError or RegistryError for one that is refused.

        like: the one that serves; one of the same recipe has nothing left to compile.
        """
        proof = self._proof(horizon, id)
        if proof is None:
            return prove(self._registry, horizon, id)
        if proof.problem is not None:
            raise BundleError(proof.problem)
        bundle = self._registry.load(horizon, id)
        if fingerprint(bundle) != proof.fingerprint:
            raise BundleError(f"bundle {id} of {horizon} was changed while it was being proved")
        if like is None or like.recipe is not bundle.recipe:
            bundle.warm()
        bundle.verify_predictions()  # by the forest as it is in this process
        return bundle

    def _proof(self, horizon: str, id: str) -> Proof | None:
        """The helper's word; None where none is ready, or it ended over it."""
        helper = self._helper()
        if helper is None:
            return None
        try:
            if not helper.ready():
                return None
            helper.proofs.send_bytes(msgspec.msgpack.encode((horizon, id)))
            if helper.proofs.poll(PATIENCE):
                return msgspec.msgpack.decode(helper.proofs.recv_bytes(), type=Proof)
            helper.proofs.close()  # its word would come when it answers another question
            trouble = f"said nothing for {PATIENCE:g} s"
        except (EOFError, OSError) as error:
            trouble = f"is gone ({type(error).__name__})"
        log.warning(f"the helper {trouble}: bundle {id} of {horizon} is proved in the service itself")
        return None
