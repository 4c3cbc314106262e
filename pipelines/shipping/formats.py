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
