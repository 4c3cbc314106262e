"""Shows pictures to the SavedModel beside this file; needs TensorFlow alone.    python sample.py picture.jpg …"""

import json
import sys
from pathlib import Path

import tensorflow as tf

folder = Path(__file__).parent / "saved_model"
about = json.loads((folder / "assets" / "trellis.json").read_text())
model = tf.saved_model.load(str(folder))
for name in sys.argv[1:]:
    picture = Path(name).read_bytes()  # JPEG or PNG of any size
    found = model.signatures["serving_default"](images=tf.constant([picture]))
    if "probabilities" in found:
        best = int(tf.argmax(found["probabilities"][0]))
        print(
            name,
            about["labels"][best],
            float(found["probabilities"][0, best]),
        )
    elif "logits" in found:
        print(
            name,
            "classes of the prepared picture's pixels",
            tf.argmax(found["logits"][0], -1).shape,
        )
    for number in range(int(found["num_detections"][0]) if "num_detections" in found else 0):
        label = about["labels"][int(found["detection_classes"][0, number]) - about["first_label"]]
        score = float(found["detection_scores"][0, number])
        box = [round(float(side), 1) for side in found["detection_boxes"][0, number]]
        if score >= about["min_score"]:
            print(
                name,
                label,
                round(score, 3),
                "top, left, bottom, right:",
                box,
            )
