"""The formats that a model can be written in."""

from importlib.util import find_spec

# The official names of how weights and activations of a TFLite model are kept.
QUANTIZED = {
    "tflite": None,
    "tflite_fp16": "fp16",
    "tflite_dynamic": "default",
    "tflite_int8": "int8",
}
INT8 = "tflite_int8"
ONNX = "onnx"
FORMATS = ("saved_model", *QUANTIZED, "tfhub", ONNX)
# Answers that are to be the checkpoint's own.
FLOAT32 = ("saved_model", "tflite", "tfhub", ONNX)
NO_ONNX = (
    "ONNX's packages, the extra `onnx`, are not installed; install what the lock has: make -B setup"
)


def refusal(form: str, kind: str) -> str | None:
    """Why no model of a vision task can have a format; None where one can."""
    if form == "tfhub" and kind != "classification":
        return "Model Garden's exporter for TF Hub knows classifiers alone; take saved_model"
    if form == ONNX and not has_onnx():
        return NO_ONNX
    return None


def has_onnx() -> bool:
    """Whether the packages of the extra `onnx` are installed."""
    return all(find_spec(name) for name in ("onnx", "onnxruntime", "tf2onnx"))
