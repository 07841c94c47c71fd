"""The same model in onnxruntime: converted by onnxmltools, evaluated on one thread."""

from collections.abc import Callable

import lightgbm as lgb
import numpy as np


def onnx_predict(booster: lgb.Booster) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """`{"onnxruntime": float32 [N, F] -> float32 [N]}`; empty, and a line that says so, where it is not installed."""
    try:
        import onnxruntime
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as error:
        print(f"{error.name} is not installed: left out. `uv pip install onnxruntime onnxmltools` brings it")
        return {}
    inputs = [("X", FloatTensorType([None, booster.num_feature()]))]
    model = convert_lightgbm(booster, initial_types=inputs, zipmap=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {"onnxruntime": lambda X: session.run(None, {"X": X})[0].ravel()}
