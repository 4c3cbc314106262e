"""Shows pictures to the ONNX model beside this file.    python sample.py picture.jpg …

Needs onnxruntime and NumPy; and Pillow, but for pictures that are arrays (picture.npy). What is found is printed; boxes are
drawn into <picture>.found.png, classes of pixels are written into <picture>.classes.png.
"""

import json
import sys
from pathlib import Path

import in_numpy
from onnxruntime import InferenceSession

file = next(Path(__file__).parent.glob("*.onnx"))
session = InferenceSession(file, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["trellis.json"])
names = [output.name for output in session.get_outputs()]
for name in sys.argv[1:]:
    picture = in_numpy.read(name)
    image, *shown = in_numpy.prepared(picture, about["input"])
    answers = session.run(names, {"images": image})
    said = dict(zip(names, answers, strict=True))
    in_numpy.show(name, picture, said, shown, about)
