"""Shows pictures to the SavedModel beside this file; needs TensorFlow alone.    python sample.py picture.jpg …

What is found is printed; boxes and masks are drawn into <picture>.found.png, classes of pixels are written into
<picture>.classes.png.
"""

import json
import sys
from pathlib import Path

import in_numpy
import tensorflow as tf

folder = Path(__file__).parent / "saved_model"
about = json.loads((folder / "assets" / "trellis.json").read_text())
model = tf.saved_model.load(str(folder))
for name in sys.argv[1:]:
    content = Path(name).read_bytes()  # JPEG or PNG of any size
    picture = tf.io.decode_image(content, 3, expand_animations=False).numpy()
    found = model.signatures["serving_default"](images=tf.constant([content]))
    said = {key: value[0].numpy() for key, value in found.items()}
    if "probabilities" in said:
        in_numpy.show_class(name, said["probabilities"], about)
    elif "classes" in said:
        in_numpy.show_pixels(name, said["classes"], about)
    else:
        in_numpy.show_boxes(name, picture, in_numpy.detected(said, about), about)
