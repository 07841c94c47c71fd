"""LightGBM's own fast path for one row, which its Python package does not offer: the C function, called directly."""

import ctypes
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
from lightgbm.basic import _LIB

FLOAT32, NORMAL = 0, 0  # C_API_DTYPE_FLOAT32, C_API_PREDICT_NORMAL


def single_row(booster: lgb.Booster) -> Callable[[np.ndarray], np.ndarray]:
    """A function from float32 [1, F] to float64 [1]: `LGBM_BoosterPredictForMatSingleRowFast`, one thread."""
    config = ctypes.c_void_p()
    _check(
        _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, NORMAL, 0, -1, FLOAT32, booster.num_feature(), b"num_threads=1", ctypes.byref(config)
        )
    )
    answer, length = (ctypes.c_double * 1)(), ctypes.c_int64()
    predict, size = _LIB.LGBM_BoosterPredictForMatSingleRowFast, ctypes.byref(length)

    def call(X: np.ndarray, keep: lgb.Booster = booster) -> np.ndarray:  # the handle lives as long as its booster
        _check(predict(config, ctypes.c_void_p(X.ctypes.data), size, answer))
        return np.array(answer)

    return call


def _check(status: int) -> None:
    if status:
        raise lgb.basic.LightGBMError(_LIB.LGBM_GetLastError())
