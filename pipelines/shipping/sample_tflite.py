"""Shows pictures to the TFLite model beside this file.    python sample.py picture.jpg …

Needs ai-edge-litert and NumPy; and Pillow, but for pictures that are arrays (picture.npy). What is found is printed; boxes are
drawn into <picture>.found.png, classes of pixels are written into <picture>.classes.png.
"""

import json
import sys
import zipfile
from pathlib import Path

import in_numpy
from ai_edge_litert.interpreter import Interpreter

file = next(Path(__file__).parent.glob("*.tflite"))
about = json.loads(zipfile.ZipFile(file).read("trellis.json"))
model = Interpreter(str(file)).get_signature_runner()
for name in sys.argv[1:]:
    picture = in_numpy.read(name)
    image, *shown = in_numpy.prepared(picture, about["input"])
    in_numpy.show(name, picture, model(images=image), shown, about)
