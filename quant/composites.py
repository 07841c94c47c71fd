"""Indicators written in the language itself. Prices are the bar columns unless a series is given.

Sources: Wilder, "New Concepts in Technical Trading Systems" (1978) for rsi, true_range and atr; Appel,
"Technical Analysis" (2005) for macd; Bollinger, "Bollinger on Bollinger Bands" (2001); Lane for stoch_k;
Williams for williams_r. TA-Lib's values, within the residual of the exponential means.
"""

import ast

from quant.signature import Composite

_DEFINITIONS = {
    "delta(x, n=1)": ("x - lag(x, n)", "change over n slots"),
    "momentum(x, n)": ("x - lag(x, n)", "change over n slots"),
    "returns(x, n=1)": ("x / lag(x, n) - 1", "relative change over n slots"),
    "log_returns(x, n=1)": ("log(x / lag(x, n))", "change of the logarithm over n slots"),
    "roc(x, n)": ("100 * (x / lag(x, n) - 1)", "relative change over n slots, in percent"),
    "range(x, n)": ("max(x, n) - min(x, n)", "largest less smallest value"),
    "volatility(x, n)": ("std(log_returns(x), n)", "standard deviation of one-slot log returns"),
    "typical_price()": ("(high + low + close) / 3", "mean of high, low and close"),
    "true_range()": (
        "maximum(high, lag(close)) - minimum(low, lag(close))",
        "range of the bar, from the previous close on",
    ),
    "atr(n=14)": ("wilder(true_range(), n)", "average true range"),
    "natr(n=14)": ("100 * atr(n) / close", "average true range in percent of the close"),
    "rsi(x, n=14)": (
        "100 * wilder(maximum(delta(x), 0), n) / wilder(abs(delta(x)), n)",
        "relative strength index: rises as a share of all changes, in percent",
    ),
    "macd(x, fast=12, slow=26)": ("ema(x, fast) - ema(x, slow)", "difference of two exponential means"),
    "macd_signal(x, fast=12, slow=26, n=9)": ("ema(macd(x, fast, slow), n)", "exponential mean of macd"),
    "macd_histogram(x, fast=12, slow=26, n=9)": (
        "macd(x, fast, slow) - macd_signal(x, fast, slow, n)",
        "macd less its signal",
    ),
    "bollinger_upper(x, n=20, k=2)": ("mean(x, n) + k * std(x, n, 0)", "upper band"),
    "bollinger_lower(x, n=20, k=2)": ("mean(x, n) - k * std(x, n, 0)", "lower band"),
    "bollinger_position(x, n=20, k=2)": (
        "(x - mean(x, n)) / (2 * k * std(x, n, 0)) + 0.5",
        "place between the bands: 0 on the lower, 1 on the upper (%B)",
    ),
    "bollinger_width(x, n=20, k=2)": (
        "2 * k * std(x, n, 0) / mean(x, n)",
        "distance of the bands, over their middle",
    ),
    "stoch_k(n=14)": (
        "100 * (close - min(low, n)) / (max(high, n) - min(low, n))",
        "place of the close in the range of n bars, in percent",
    ),
    "stoch_d(n=14, smooth=3)": ("mean(stoch_k(n), smooth)", "mean of stoch_k"),
    "williams_r(n=14)": (
        "-100 * (max(high, n) - close) / (max(high, n) - min(low, n))",
        "place of the close below the highest high of n bars, in percent",
    ),
}


def _composite(signature: str, text: str, summary: str) -> Composite:
    call = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(call, ast.FunctionDef)
    names = [argument.arg for argument in call.args.args]
    defaults = [ast.literal_eval(default) for default in call.args.defaults]
    parameters = dict.fromkeys(names) | dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    return Composite(call.name, parameters, text, summary)


COMPOSITES = tuple(_composite(signature, *definition) for signature, definition in _DEFINITIONS.items())
