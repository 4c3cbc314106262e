"""Shows pictures to the SavedModel beside this file; needs TensorFlow alone.    python sample.py picture.jpg …

Of boxes and masks it draws <picture>.found.png into the current folder; of pixels it writes <picture>.classes.png, whose
values are the classes.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

folder = Path(__file__).parent / "saved_model"
about = json.loads((folder / "assets" / "trellis.json").read_text())
model = tf.saved_model.load(str(folder))


def pixels(name, classes):
    tf.io.write_file(
        f"{Path(name).stem}.classes.png",
        tf.io.encode_png(classes[..., None]),
    )
    counts = tf.math.bincount(
        tf.cast(classes, tf.int32),
        minlength=len(about["labels"]),
    )
    print(name, dict(zip(about["labels"], counts.numpy().tolist(), strict=True)))


def objects(name, content, found):
    picture = tf.cast(tf.io.decode_image(content, 3, expand_animations=False), tf.float32)
    height, width, _ = picture.shape
    sure = tf.where(found["detection_scores"][0] >= about["min_score"])[:, 0].numpy()
    for number in sure[sure < int(found["num_detections"][0])]:
        label = about["labels"][int(found["detection_classes"][0, number]) - about["first_label"]]
        score = float(found["detection_scores"][0, number])
        box = found["detection_boxes"][0, number]  # top, left, bottom, right, in pixels
        place = [round(float(side), 1) for side in box]
        print(name, label, round(score, 3), place)
        if "detection_masks" in found:
            top, left, bottom, right = (round(float(side)) for side in box)
            sides = [max(bottom - top, 1), max(right - left, 1)]
            mask = (
                tf.image.resize(
                    found["detection_masks"][0, number][..., None],
                    sides,
                )
                > 0.5
            )
            ends = top + sides[0], left + sides[1]
            mask = tf.image.pad_to_bounding_box(mask, top, left, *ends)
            rest = [[0, 1 + height], [0, 1 + width], [0, 0]]
            mask = tf.pad(mask, rest)[:height, :width]
            picture = tf.where(mask, picture / 2 + [0.0, 127.0, 0.0], picture)
        share = box / [height, width, height, width]
        drawn = tf.image.draw_bounding_boxes(
            picture[None],
            share[None, None],
            [[255.0, 0, 0]],
        )
        picture = drawn[0]
    drawn = tf.io.encode_png(tf.cast(picture, tf.uint8))
    tf.io.write_file(f"{Path(name).stem}.found.png", drawn)


for name in sys.argv[1:]:
    content = Path(name).read_bytes()  # JPEG or PNG of any size
    found = model.signatures["serving_default"](images=tf.constant([content]))
    if "probabilities" in found:
        best = int(tf.argmax(found["probabilities"][0]))
        print(
            name,
            about["labels"][best],
            float(found["probabilities"][0, best]),
        )
    elif "classes" in found:
        pixels(name, found["classes"][0])
    else:
        objects(name, content, found)
