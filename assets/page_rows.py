"""Rows on the evaluation page: the folds in time with purge and embargo, where every row went, and the versions."""

from collections.abc import Sequence
from html import escape

import numpy as np

from assets import page
from assets.chart import Plot, legend, stamp
from assets.findings import Findings

PARTS = ("train", "valid", "test")


def folds(found: Findings) -> str:
    """A line per fold: what its model learned from, what stopped it, what was left out, and what it was tested on."""
    manifest = found.bundle.manifest
    lines = [(f"fold {at + 1}", fold["spans"], fold["counts"]) for at, fold in enumerate(manifest.get("folds", ()))]
    lines.append(("final model", manifest["spans"], manifest["counts"]))
    moments = [np.datetime64(text.rstrip("Z")) for _, spans, _ in lines for span in spans.values() for text in span]
    first, last = min(moments), max(moments)
    scale = max((last - first) / np.timedelta64(1, "s"), 1.0)

    def place(text: str) -> float:
        return float((np.datetime64(text.rstrip("Z")) - first) / np.timedelta64(1, "s") / scale)

    pitch = 30
    plot = Plot((0, 1), (0, 1), height=pitch * len(lines) + 34, left=96, right=200, top=4)
    for at, (name, spans, counts) in enumerate(lines):
        y = plot.top + pitch * at + 5
        plot.text(plot.left - 10, y + 14, name, anchor="end", look="n")
        plot.rect(plot.left, y, plot.right - plot.left, 20, "f-outside", "", 3)
        drawn = []
        for part in PARTS:
            if part not in spans:
                continue
            about = f"{part}: {counts[part]:,} rows, {' to '.join(_day(text) for text in spans[part])}"
            runs = found.tested[at] if part == "test" and at in found.tested else [spans[part]]
            for run in runs:
                start, end = (plot.at_x(place(str(moment))) for moment in run)
                plot.rect(start, y, max(end - start, 1.5), 20, f"f-{part}", about, 2)
                drawn.append((start, end, part))
        told = f"{counts.get('purged', 0):,} rows purged and {counts.get('embargoed', 0):,} embargoed on this line"
        _gaps(plot, drawn, told, y)
        left = f"{counts.get('purged', 0):,} purged, {counts.get('embargoed', 0):,} embargoed"
        plot.text(plot.right + 10, y + 14, left)
    marks = np.linspace(0, 1, 6)
    moment = [first + np.timedelta64(int(mark * scale), "s") for mark in marks]
    plot.x_labels([(float(mark), stamp(at, minutes=scale < 3 * 86400)) for mark, at in zip(marks, moment, strict=True)])
    keys = [("block k-train", "learned from"), ("block k-valid", "stops it"), ("block k-test", "tested on")]
    keys += [("block k-embargo", "embargoed"), ("block k-purge", "purged"), ("block k-shade", "not used")]
    return legend(keys) + plot.svg("folds in time")


def _gaps(plot: Plot, blocks: Sequence[tuple[float, float, str]], told: str, y: float) -> None:
    """Mark what purge and embargo left out: all that no block takes, and around blocks inside the learned span.

    blocks: (start, end, part) in pixels. The purged rows lie beside what they would have leaked into. Around a block
    inside the learned span the marks are of a fixed width, so that they can be seen.
    """
    ordered = sorted(blocks)
    _, reached, before = ordered[0]
    for start, end, part in ordered[1:]:
        if start > reached:
            width = max(start - reached, 4.0)
            left = (start + reached - width) / 2
            looks = ("purge", "embargo") if before == "test" else ("embargo", "purge")
            for at, look in enumerate(looks):
                plot.rect(left + at * width / 2, y - 3, width / 2, 26, f"f-{look}", told)
        if end > reached:
            reached, before = end, part
    learned = [(start, end) for start, end, part in blocks if part == "train"]
    for start, end, part in blocks:
        for first, last in learned:
            if part != "train" and first < start < last:
                plot.rect(start - 4, y - 3, 2, 26, "f-embargo", told)
                plot.rect(start - 2, y - 3, 2, 26, "f-purge", told)
            if part != "train" and first < end < last:
                plot.rect(end, y - 3, 2, 26, "f-purge", told)
                plot.rect(end + 2, y - 3, 2, 26, "f-embargo", told)


def account(found: Findings) -> str:
    """Where every row of the factor table went, adding up."""
    counts = dict(found.bundle.manifest["counts"])
    kept = {name: counts[name] for name in (*PARTS, "purged", "embargoed") if name in counts}
    dropped = {name: count for name, count in counts.items() if name not in kept and name not in ("rows", "in")}
    total = counts.get("in", counts["rows"] + sum(dropped.values()))
    plot = Plot((0, max(1, total)), (0, 1), height=46, left=0, right=0, top=0, bottom=12)
    looks = {"train": "train", "valid": "valid", "test": "test", "purged": "purge", "embargoed": "embargo"}
    start = 0
    for name, count in {**kept, **dropped}.items():
        x = plot.at_x(start)
        width = plot.at_x(start + count) - x
        plot.rect(x, 4, width, 28, f"f-{looks.get(name, 'none')}", f"{name}: {count:,} of {total:,}")
        start += count
    keys = [(f"block k-{look}", name) for name, look in looks.items() if name in counts]
    rows = [("rows of the factor table", f"{total:,}", "")]
    rows += [(f"− {name}", f"{count:,}", _share(count, total)) for name, count in dropped.items()]
    rows += [("= labelled rows", f"{counts['rows']:,}", _share(counts["rows"], total))]
    rows += [(f"of them {name}", f"{count:,}", _share(count, total)) for name, count in kept.items()]
    adds = sum(kept.values()) == counts["rows"] and counts["rows"] + sum(dropped.values()) == total
    told = "It adds up." if adds else "It does not add up: please report this."
    keys.append(("block", "dropped before"))
    weights = found.bundle.manifest.get("weights")
    if weights:
        told += (
            f" Training rows weigh {page.figure(weights['lowest'])} to {page.figure(weights['highest'])}, on "
            f"average 1: as much as {weights['effective']:,.0f} rows that weigh alike."
        )
    return (
        legend(keys) + plot.svg("where the rows went") + page.table(("rows", "count", "share"), rows) + f"<p>{told}</p>"
    )


def versions(found: Findings, config: str) -> str:
    """Configuration, digests of what makes the id, and the versions of the tables it was made from."""
    manifest, provenance = found.bundle.manifest, found.provenance
    tables = provenance.get("tables", {})
    rows = [
        ("bundle", found.bundle.id),
        ("trained at", provenance.get("trained_at", "–")),
        ("run", provenance.get("run", "–")),
    ]
    rows += [(f"table {name}", f"version {version}") for name, version in tables.items()]
    rows += [(f"digest of {name}", digest[:16]) for name, digest in manifest["digests"].items()]
    rows += [("made on", manifest["device"])]
    return (
        f"{page.table(('what', 'value'), rows)}<details><summary>Resolved configuration</summary>"
        f"<pre>{escape(config)}</pre></details>"
    )


def _day(text: str) -> str:
    return text.rstrip("Z").replace("T00:00:00", "").replace("T", " ")


def _share(count: int, total: int) -> str:
    return f"{count / max(1, total):.1%}"
