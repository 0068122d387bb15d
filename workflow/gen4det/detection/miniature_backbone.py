"""The backbone of the miniature's detector, pretrained on classifying rendered objects."""

import torch
from safetensors.torch import save_file

from gen4det.detection.detectors import MODELS, load_config
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.classifier import Classifier, all_category_ids, train_classifier
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_parts import DETECTOR


def make(job: FoundationJob) -> dict:
    """Pretrain the detector's ResNet on the categories that are not rare; facts for the record.

    It stands where ImageNet weights stand at full scale. Rare categories are left out, so that nothing
    but the detection set and the synthetic data teaches the detector about them.
    """
    torch.manual_seed(job.settings.seed)
    backbone = MODELS.build(load_config(DETECTOR, classes=len(CATEGORIES)).model.backbone)
    width = backbone(torch.zeros(1, 3, 64, 64))[-1].shape[1]
    model = Classifier(backbone, width, all_category_ids(rare=False))
    facts = train_classifier(job, model, job.settings.backbone_steps)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in backbone.state_dict().items()
    }
    with job.result() as folder:
        save_file(state, folder / "model.safetensors")
    return facts
