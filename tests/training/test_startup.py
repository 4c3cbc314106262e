"""What TensorFlow and Model Garden import and a training never touches."""

import subprocess
import sys

CODE = """
import sys
from pipelines import training
from pipelines.training import experiment
read = [name for name in training.UNUSED if type(sys.modules.get(name)) is training.ModuleType]
assert not read, read
assert not {"pandas.core", "matplotlib.figure", "tensorflow_datasets.core"} & set(sys.modules)
from requests.adapters import HTTPAdapter  # a part before the whole
import mlflow
import pandas
import matplotlib.pyplot as plt
import requests
import scipy.ndimage
import tensorflow_datasets as tfds
from googleapiclient import discovery
assert pandas.DataFrame({"a": [1, 2]}).a.sum() == 3 and pandas.__version__
assert plt.subplots()[1].plot([1], [2]) and requests.Session() and discovery.build
assert scipy.ndimage.gaussian_filter([0.0, 1.0], 1).sum() > 0 and tfds.features.Image()
"""


def test_it_is_executed_at_its_first_use():
    subprocess.run([sys.executable, "-c", CODE], check=True)
