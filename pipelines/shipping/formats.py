"""The formats that a model can be written in."""

# The official names of how weights and activations of a TFLite model are kept.
QUANTIZED = {
    "tflite": None,
    "tflite_fp16": "fp16",
    "tflite_dynamic": "default",
    "tflite_int8": "int8",
}
INT8 = "tflite_int8"
FORMATS = ("saved_model", *QUANTIZED, "tfhub", "onnx")


def refusal(form: str, kind: str) -> str | None:
    """Why no model of a vision task can have a format; None where one can."""
    if form == "tfhub" and kind != "classification":
        return "Model Garden's exporter for TF Hub knows classifiers alone; take saved_model"
    return None
