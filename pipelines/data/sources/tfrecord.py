"""TFRecords that somebody else wrote: adopted as they are, by `pipelines.data.adoption`."""

from pipelines.data.listing import Facts

FACTS = Facts(
    tasks=("classification", "detection", "segmentation", "video_classification"),
    required=("images",),
    patterns=True,
    adopted=True,
)
