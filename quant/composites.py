"""Indicators written in the language itself. Prices are the bar columns unless a series is given.

They are TA-Lib's, where it has them, within the residual of the exponential means.
"""

import ast

from quant.signature import Composite

WILDER = 'Wilder, "New Concepts in Technical Trading Systems" (1978)'
APPEL = 'Appel, "Technical Analysis: Power Tools for Active Investors" (2005)'
BOLLINGER = 'Bollinger, "Bollinger on Bollinger Bands" (2001)'
KELTNER = 'Keltner (1960), in the form of Raschke and Connors, "Street Smarts" (1995)'
DONCHIAN = 'Donchian, "High Finance in Copper", Financial Analysts Journal (1960)'
CHANDE = 'Chande, "A Time Price Oscillator", Technical Analysis of Stocks & Commodities (1995)'
YANG_ZHANG = 'Yang and Zhang, "Drift-Independent Volatility Estimation", Journal of Business 73 (2000)'
KAKUSHADZE = 'Kakushadze, "101 Formulaic Alphas", Wilmott (2016)'

# signature: (text, what it is, source)
_DEFINITIONS = {
    # Changes
    "delta(x, n=1)": ("x - lag(x, n)", "change over n slots", ""),
    "momentum(x, n)": ("x - lag(x, n)", "change over n slots", ""),
    "returns(x, n=1)": ("x / lag(x, n) - 1", "relative change over n slots", ""),
    "log_returns(x, n=1)": ("log(x / lag(x, n))", "change of the logarithm over n slots", ""),
    "roc(x, n)": ("100 * (x / lag(x, n) - 1)", "relative change over n slots, in percent", ""),
    "range(x, n)": ("max(x, n) - min(x, n)", "largest less smallest value", ""),
    "signed_power(x, a)": ("sign(x) * abs(x) ** a", "power of the size, with the sign of x", KAKUSHADZE),
    # Trend
    "macd(x, fast=12, slow=26)": ("ema(x, fast) - ema(x, slow)", "difference of two exponential means", APPEL),
    "macd_signal(x, fast=12, slow=26, n=9)": ("ema(macd(x, fast, slow), n)", "exponential mean of macd", APPEL),
    "macd_histogram(x, fast=12, slow=26, n=9)": (
        "macd(x, fast, slow) - macd_signal(x, fast, slow, n)",
        "macd less its signal",
        'Aspray, "MACD Momentum", Technical Analysis of Stocks & Commodities (1988)',
    ),
    "ppo(x, fast=12, slow=26)": ("100 * macd(x, fast, slow) / ema(x, slow)", "macd in percent of the slow mean", APPEL),
    "trix(x, n=15)": (
        # The change is averaged, not the average changed: equal, and float32 keeps its digits.
        "100 * ema(ema(ema(delta(x), n), n), n) / lag(ema(ema(ema(x, n), n), n))",
        "relative change of a threefold exponential mean, in percent",
        'Hutson, "Good TRIX", Technical Analysis of Stocks & Commodities (1983)',
    ),
    "dm_plus()": (
        "where(delta(high) > -delta(low), maximum(delta(high), 0), 0)",
        "how far the high rose, where the low did not fall further (+DM)",
        WILDER,
    ),
    "dm_minus()": (
        "where(-delta(low) > delta(high), maximum(-delta(low), 0), 0)",
        "how far the low fell, where the high did not rise further (-DM)",
        WILDER,
    ),
    "di_plus(n=14)": ("100 * wilder(dm_plus(), n) / wilder(true_range(), n)", "positive directional indicator", WILDER),
    "di_minus(n=14)": (
        "100 * wilder(dm_minus(), n) / wilder(true_range(), n)",
        "negative directional indicator",
        WILDER,
    ),
    "dx(n=14)": (
        "100 * abs(wilder(dm_plus(), n) - wilder(dm_minus(), n)) / (wilder(dm_plus(), n) + wilder(dm_minus(), n))",
        "directional movement index",
        WILDER,
    ),
    "adx(n=14)": ("wilder(dx(n), n)", "average directional movement index", WILDER),
    "aroon_up(n=14)": (
        "100 - 100 * argmax(high, n + 1) / n",
        "how near the highest high of n bars is: 100 now",
        CHANDE,
    ),
    "aroon_down(n=14)": ("100 - 100 * argmin(low, n + 1) / n", "how near the lowest low of n bars is: 100 now", CHANDE),
    "aroon_oscillator(n=14)": ("aroon_up(n) - aroon_down(n)", "aroon_up less aroon_down", CHANDE),
    # Oscillators
    "rsi(x, n=14)": (
        "100 * wilder(maximum(delta(x), 0), n) / wilder(abs(delta(x)), n)",
        "relative strength index: rises as a share of all changes, in percent",
        WILDER,
    ),
    "stoch_k(n=14)": (
        "100 * (close - min(low, n)) / (max(high, n) - min(low, n))",
        "place of the close in the range of n bars, in percent",
        'Lane, "Lane\'s Stochastics", Technical Analysis of Stocks & Commodities (1984)',
    ),
    "stoch_d(n=14, smooth=3)": ("mean(stoch_k(n), smooth)", "mean of stoch_k", "Lane, as above"),
    "williams_r(n=14)": (
        "-100 * (max(high, n) - close) / (max(high, n) - min(low, n))",
        "place of the close below the highest high of n bars, in percent",
        'Williams, "How I Made One Million Dollars … Last Year … Trading Commodities" (1973)',
    ),
    "cci(n=20)": (
        "(typical_price() - mean(typical_price(), n)) / (0.015 * mean_deviation(typical_price(), n))",
        "commodity channel index: distance from the mean, in 0.015 mean deviations",
        'Lambert, "Commodity Channel Index", Commodities (1980)',
    ),
    "ultimate_oscillator(fast=7, middle=14, slow=28)": (
        "100 / 7 * (4 * sum(buying_pressure(), fast) / sum(true_range(), fast)"
        " + 2 * sum(buying_pressure(), middle) / sum(true_range(), middle)"
        " + sum(buying_pressure(), slow) / sum(true_range(), slow))",
        "buying pressure as a share of the true range over three windows, in percent",
        'Williams, "The Ultimate Oscillator", Technical Analysis of Stocks & Commodities (1985)',
    ),
    "buying_pressure()": (
        "close - minimum(low, lag(close))",
        "how far the close is above the bar's true low",
        "Williams, as above",
    ),
    # Volatility
    "volatility(x, n)": ("std(log_returns(x), n)", "standard deviation of one-slot log returns", ""),
    "true_range()": (
        "maximum(high, lag(close)) - minimum(low, lag(close))",
        "range of the bar, from the previous close on",
        WILDER,
    ),
    "atr(n=14)": ("wilder(true_range(), n)", "average true range", WILDER),
    "natr(n=14)": ("100 * atr(n) / close", "average true range in percent of the close", WILDER),
    "bollinger_upper(x, n=20, k=2)": ("mean(x, n) + k * std(x, n, 0)", "upper band", BOLLINGER),
    "bollinger_lower(x, n=20, k=2)": ("mean(x, n) - k * std(x, n, 0)", "lower band", BOLLINGER),
    "bollinger_position(x, n=20, k=2)": (
        "(x - mean(x, n)) / (2 * k * std(x, n, 0)) + 0.5",
        "place between the bands: 0 on the lower, 1 on the upper (%B)",
        BOLLINGER,
    ),
    "bollinger_width(x, n=20, k=2)": (
        "2 * k * std(x, n, 0) / mean(x, n)",
        "distance of the bands, over their middle",
        BOLLINGER,
    ),
    "keltner_upper(n=20, k=2, m=10)": ("ema(close, n) + k * atr(m)", "upper band", KELTNER),
    "keltner_lower(n=20, k=2, m=10)": ("ema(close, n) - k * atr(m)", "lower band", KELTNER),
    "keltner_position(n=20, k=2, m=10)": (
        "(close - ema(close, n)) / (2 * k * atr(m)) + 0.5",
        "place of the close between the bands: 0 on the lower, 1 on the upper",
        KELTNER,
    ),
    "donchian_upper(n=20)": ("max(high, n)", "highest high", DONCHIAN),
    "donchian_lower(n=20)": ("min(low, n)", "lowest low", DONCHIAN),
    "donchian_middle(n=20)": (
        "(max(high, n) + min(low, n)) / 2",
        "half way between highest high and lowest low",
        DONCHIAN,
    ),
    "donchian_width(n=20)": (
        "2 * (max(high, n) - min(low, n)) / (max(high, n) + min(low, n))",
        "highest high less lowest low, over their middle",
        DONCHIAN,
    ),
    "parkinson(n=20)": (
        "sqrt(mean(log(high / low) ** 2, n) / (4 * log(2)))",
        "volatility per bar from highs and lows",
        'Parkinson, "The Extreme Value Method for Estimating the Variance of the Rate of Return" (1980)',
    ),
    "garman_klass(n=20)": (
        "sqrt(mean(0.5 * log(high / low) ** 2 - (2 * log(2) - 1) * log(close / open) ** 2, n))",
        "volatility per bar from open, high, low and close",
        'Garman and Klass, "On the Estimation of Security Price Volatilities from Historical Data" (1980)',
    ),
    "rogers_satchell(n=20)": (
        "sqrt(mean(log(high / close) * log(high / open) + log(low / close) * log(low / open), n))",
        "volatility per bar that a drift does not bias",
        'Rogers and Satchell, "Estimating Variance from High, Low and Closing Prices" (1991)',
    ),
    "yang_zhang(n=20)": (
        "sqrt(var(log(open / lag(close)), n) + (1 - 0.34 / (1.34 + (n + 1) / (n - 1))) * rogers_satchell(n) ** 2"
        " + 0.34 / (1.34 + (n + 1) / (n - 1)) * var(log(close / open), n))",
        "volatility per bar from gaps, bodies and ranges",
        YANG_ZHANG,
    ),
    # Volume and liquidity
    "typical_price()": ("(high + low + close) / 3", "mean of high, low and close", ""),
    "money_flow()": ("typical_price() * volume", "turnover of the bar", ""),
    "adv(n=20)": ("mean(close * volume, n)", "average turnover of n bars", KAKUSHADZE),
    "mfi(n=14)": (
        "100 * sum(where(delta(typical_price()) > 0, money_flow(), 0), n)"
        " / sum(where(delta(typical_price()) != 0, money_flow(), 0), n)",
        "money flow index: turnover of rising bars as a share of rising and falling ones, in percent",
        'Quong and Soudack, "Volume-Weighted RSI: Money Flow", Technical Analysis of Stocks & Commodities (1989)',
    ),
    "obv(n=20)": (
        "sum(sign(delta(close)) * volume, n)",
        "on-balance volume of the last n bars: volume of rising less that of falling ones",
        'Granville, "New Key to Stock Market Profits" (1963), summed over a window',
    ),
    "vwap(n=390)": (
        "sum_since(money_flow(), bar_of_session == 0, n) / sum_since(volume, bar_of_session == 0, n)",
        "volume-weighted average of typical prices since the session's open; n: bars of the longest session",
        'Berkowitz, Logue and Noser, "The Total Cost of Transactions on the NYSE" (1988)',
    ),
    "chaikin_money_flow(n=20)": (
        "sum(where(high > low, (2 * close - high - low) / (high - low), 0) * volume, n) / sum(volume, n)",
        "volume weighted by where each bar closed in its range, over volume",
        "Chaikin, after Williams' accumulation and distribution",
    ),
    "amihud(n=20)": (
        "1e6 * mean(abs(returns(close)) / (close * volume), n)",
        "illiquidity: relative change per million of turnover",
        'Amihud, "Illiquidity and Stock Returns", Journal of Financial Markets 5 (2002)',
    ),
    "roll_spread(n=20)": (
        "2 * sqrt(maximum(-cov(log_returns(close), lag(log_returns(close)), n), 0))",
        "effective bid-ask spread over the price, from the bounce of returns; 0 where they do not bounce",
        'Roll, "A Simple Implicit Measure of the Effective Bid-Ask Spread", Journal of Finance 39 (1984)',
    ),
}


def _composite(signature: str, text: str, summary: str, source: str) -> Composite:
    call = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(call, ast.FunctionDef)
    names = [argument.arg for argument in call.args.args]
    defaults = [ast.literal_eval(default) for default in call.args.defaults]
    parameters = dict.fromkeys(names) | dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    return Composite(call.name, parameters, text, summary, source)


COMPOSITES = tuple(_composite(signature, *definition) for signature, definition in _DEFINITIONS.items())
