"""What each factor adds to each prediction: exact SHAP values of the forest, by LightGBM itself."""

import numpy as np
import numpy.typing as npt


def contributions(text: str, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """SHAP values [N, F + 1] of rows X [N, F] under a LightGBM model text; the last column is where every row starts.

    A row's values sum to its raw score (Lundberg et al., 2020, "From local explanations to global understanding").
    """
    import lightgbm as lgb

    return np.asarray(lgb.Booster(model_str=text).predict(X, pred_contrib=True), np.float64)


def sample(rows: int, size: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """`size` of the numbers 0 .. rows - 1 in order, or all of them: the same ones each time."""
    if rows <= size:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
