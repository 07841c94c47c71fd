"""The evaluation page of one bundle: every part in its place, one self-contained HTML."""

from assets import page, page_model, page_money, page_novelty, page_rows, page_skill
from assets import page_summary as summary
from assets.findings import Findings
from assets.page_style import STYLE

SET_OFF = {
    "always": "; a tranche that ends is set off against the one that begins",
    "in session": "; a tranche that ends is set off against the one that begins, but not from a close to the next open",
    "never": "; each tranche is bought and sold on its own, for its barriers end it when they are reached",
}
BOOKS = {
    "rank": "weights by rank within each section",
    "deciles": "the highest tenth against the lowest",
    "proportional": "weights in proportion to the prediction",
}


def render(found: Findings, config: str) -> str:
    """The page; config: the resolved configuration as YAML."""
    parts = _parts(found, config)
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _, _ in parts)
    body = [STYLE, summary.header(found), f"<nav>{links}</nav>", summary.cards(found)]
    body += [page.section(title, about, content, anchor) for anchor, title, about, content in parts]
    body.append(
        "<footer>Made by Tenor. Past results of a model say nothing certain of its future ones. Everything on this "
        "page is in this file; nothing is fetched.</footer>"
    )
    return page.document(f"{found.bundle.horizon} · bundle {found.bundle.id}", body, heading=False)


def _parts(found: Findings, config: str) -> list[tuple[str, str, str, str]]:
    """(anchor, title, a line about it, content) of each part, in the order they are read."""
    explained = found.explained
    drawn = ", drawn with a fixed seed" if explained.of > len(explained.X) else ""
    but = "" if found.bundle.abstains_above is None else " (but the model not on those that it abstains from)"
    return [
        (
            "baselines",
            "Beside the baselines",
            f"Every predictor under the same rules on the same rows{but}, none of which it learned from. Bars are two "
            "standard errors and ± is one, widened for outcomes that overlap.",
            summary.rivals(found),
        ),
        ("money", "What it would have earned", _book(found), page_money.equity(found)),
        (
            "window",
            "The window nothing learned from",
            "The folds’ models on their test rows, and the final model, the one that serves, on the newest rows, which "
            "no training, stopping or tuning has seen.",
            summary.held_out(found),
        ),
        (
            "time",
            "Rank IC over time",
            "A steady slope is a steady edge; a single step is luck.",
            page_skill.ic_over_time(found),
        ),
        (
            "deciles",
            "Outcomes by decile of the prediction",
            "An edge one can trade rises from the lowest to the highest, not at one end alone. Whiskers are two "
            "standard errors.",
            page_skill.deciles(found),
        ),
        (
            "calibration",
            "Calibration",
            "Whether what is predicted is what comes, on average. Whiskers take rows as independent, which they are "
            "not quite: read them as the least there is.",
            page_skill.calibration(found),
        ),
        (
            "where",
            "Where the edge is",
            "Rank IC with two standard errors by year, regime and symbol.",
            page_skill.breakdown(found),
        ),
        (
            "novelty",
            "What it had not seen",
            "Novelty is the share of a model’s training rows that are less unusual than a row; each fold’s rows are "
            "held against that fold’s own training rows. Left to right, more rows are predicted; further left, only "
            "familiar ones.",
            page_novelty.coverage(found),
        ),
        (
            "trials",
            "What choosing did",
            "The more is tried, the better the best looks without being better: deflated Sharpe ratio (Bailey and "
            "López de Prado, 2014) and CSCV (Bailey et al., 2015).",
            page_money.trials(found),
        ),
        (
            "factors",
            "What the model uses",
            f"SHAP values of the final model by LightGBM, on {len(explained.X):,} of the {explained.of:,} rows of the "
            f"judging window{drawn}. A dot is a row; right of zero it raises the prediction.",
            page_model.importance(found),
        ),
        ("learning", "How it learned", "The final model’s loss by iteration.", page_model.curves(found)),
        (
            "folds",
            "Folds in time",
            "Purged rows have labels that reach into the next part, embargoed ones end just before it: both are left "
            "out.",
            page_rows.folds(found),
        ),
        (
            "rows",
            "Where the rows went",
            "Every row of the factor table, for the final model.",
            page_rows.account(found),
        ),
        ("versions", "What it was made from", "", page_rows.versions(found, config)),
    ]


def _book(found: Findings) -> str:
    terms, alone = found.terms, found.past.rows["symbol"].n_unique() < 2
    how = "long or short of the one symbol by the prediction" if alone else BOOKS[terms.weighting]
    night = "held overnight" if terms.overnight else "flat at each session’s end"
    return (
        f"A book of {terms.holding} overlapping tranches, {how}, {night}, less {terms.cost_bps:g} bp of what is traded "
        f"a side{SET_OFF[terms.sets_off]}. Capital is constant; at a dotted line another fold’s model takes over."
    )
