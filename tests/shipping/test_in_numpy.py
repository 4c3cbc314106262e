"""The arithmetic of the samples, without anything but NumPy."""

import numpy as np

from pipelines.shipping import in_numpy


def test_boxes_end_where_the_picture_does_and_those_of_masks_fill_their_mask():
    # A picture of 50 x 100, doubled and filled up below to 200 x 200.
    scale = np.array([2.0, 2.0])
    reaching = np.array([20.0, 10.0, 160.0, 80.0])
    mask = np.ones((28, 28))
    found = [(reaching, 0.9, 1), (reaching, 0.8, 2, mask)]
    (box, *_), (masked, *_, kept) = in_numpy.in_the_picture(found, scale, (50, 100))
    assert box.tolist() == [10, 5, 50, 40]
    assert masked.tolist() == [10, 5, 80, 40] and kept is mask


def test_a_box_over_the_edge_is_printed_and_drawn_inside_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    about = {"task": "detection", "labels": ["cell"], "first_label": 1, "min_score": 0.3}
    said = {
        "detection_boxes": np.array([[[20.0, 10.0, 160.0, 80.0]]]),
        "detection_scores": np.array([[0.9]]),
        "detection_classes": np.array([[1]]),
        "num_detections": np.array([1]),
    }
    picture = np.zeros((50, 100, 3), np.uint8)
    in_numpy.show("a.jpg", picture, said, (np.array([2.0, 2.0]), (100, 200)), about)
    assert capsys.readouterr().out == "a.jpg cell 0.9 [10.0, 5.0, 50.0, 40.0]\n"
    assert (tmp_path / "a.found.png").read_bytes().startswith(b"\x89PNG")
