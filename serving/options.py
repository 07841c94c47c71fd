"""How this process was told to run: `--options JSON`, or conf/serving/local.yaml where it was started by hand."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from conf.options import Options, Serving

WRITTEN = Path(__file__).parents[1] / "conf" / "serving" / "local.yaml"


class OptionsError(ValueError):
    """Options that are not complete or not possible; the message names the key."""


def read(text: str | None = None) -> Options:
    """The options of a JSON text, or those that conf/serving/local.yaml states; OptionsError names what is wrong."""
    try:
        if text is not None:
            return Options.model_validate_json(text)
        told = Serving.model_validate(yaml.safe_load(WRITTEN.read_text(encoding="utf-8")))
        return Options.model_validate(told.model_dump(include=set(Options.model_fields)))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}" for one in error.errors())
        raise OptionsError(f"the service's options are wrong: {found}") from error


def text(serving: Serving) -> str:
    """The argument that `read` takes: all but where the service listens."""
    return serving.model_dump_json(include=set(Options.model_fields))
