"""What only the reference training loops promise; the grader checks the rest."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import classification_train as classification
import segmentation_train as segmentation
from classification_models import CNNModel, LinearModel
from segmentation_models import CombinedLoss, LinearSegmentation

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")


class DictDataset(torch.utils.data.Dataset):
    def __init__(self, images, masks):
        self.images, self.masks = images, masks

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "mask": self.masks[index]}


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 28, 28, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def labelled(n: int, batch_size: int = 8, classes: int = 9) -> DataLoader:
    labels = torch.arange(n) % classes
    return DataLoader(
        TensorDataset(images(n) + labels[:, None, None, None] / 9, labels), batch_size
    )


def masked(n: int, batch_size: int = 8) -> DataLoader:
    masks = torch.zeros(n, 1, 28, 28)
    masks[:, :, 5:15, 8:20] = 1
    return DataLoader(DictDataset(images(n) + masks, masks), batch_size)


def sgd(model: nn.Module, rate: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate)


def state(model: nn.Module) -> dict:
    return copy.deepcopy(model.state_dict())


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    model = LinearModel()
    before = state(model)
    x = images(8)
    x[3, 0, 0, 0] = math.nan
    loader = DataLoader(TensorDataset(x, torch.zeros(8, dtype=torch.long)), 8)
    with pytest.raises(FloatingPointError, match="nan"):
        classification.train_epoch(model, loader, sgd(model), nn.CrossEntropyLoss(), CPU)
    assert same(before, state(model))


TASKS = [
    (classification.train_model, LinearModel, labelled, nn.CrossEntropyLoss, "val_acc"),
    (segmentation.train_segmentation_model, LinearSegmentation, masked, CombinedLoss, "val_iou"),
]
both_tasks = pytest.mark.parametrize("train, make, loader, make_loss, metric", TASKS)


@both_tasks
def test_early_stopping_waits_for_patience_epochs(train, make, loader, make_loss, metric):
    """At a learning rate of zero nothing improves after the first epoch."""
    history = train(make(), loader(16), loader(16), 50, 0.0, 0.0, 1, patience=3)
    assert len(history[metric]) == 4  # the best one and three more


@pytest.mark.parametrize(
    "values, patience, expected",
    [
        ([], 1, False),
        ([1, 2, 3], 1, False),
        ([3, 2], 1, True),
        ([3, 2], 2, False),
        ([1, 3, 3, 3], 2, True),
        ([3, 2, 1], None, False),
        ([3, 2, 1], 0, False),
    ],
)
def test_has_stalled(values, patience, expected):
    assert classification.has_stalled(values, patience) is expected
    assert segmentation.has_stalled(values, patience) is expected


@both_tasks
def test_the_schedule_sets_the_rate_of_every_step(
    train, make, loader, make_loss, metric, monkeypatch
):
    rates = []

    class Spy(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    data = loader(24)
    train(make(), data, data, 2, 0.1, 0.0, 3, schedule=lambda step: 1 / (step + 1))
    assert rates == pytest.approx([0.1 / n for n in range(1, 7)])


@both_tasks
def test_a_given_criterion_is_the_one_that_is_used(train, make, loader, make_loss, metric):
    class Doubled(nn.Module):
        def forward(self, predictions, targets):
            return 2 * make_loss()(predictions, targets)

    plain, doubled = (
        train(make_seeded(make), loader(8), loader(8), 1, 0.0, 0.0, 1, criterion=criterion)
        for criterion in (None, Doubled())
    )
    assert doubled["val_loss"][0] == pytest.approx(2 * plain["val_loss"][0], rel=1e-5)


def make_seeded(make):
    torch.manual_seed(0)
    return make()


def test_probabilities_that_are_not_finite_stop_before_the_loss():
    model = LinearSegmentation()
    torch.nn.init.constant_(model.layer.bias, math.nan)
    loader, before = masked(8), state(model)
    with pytest.raises(FloatingPointError, match="not finite"):
        segmentation.train_segmentation_epoch(model, loader, sgd(model), CombinedLoss(), CPU)
    with pytest.raises(FloatingPointError, match="not finite"):
        segmentation.validate_segmentation_epoch(model, loader, CombinedLoss(), CPU)
    assert torch.equal(before["layer.weight"], model.layer.weight)


def test_the_seed_decides_the_weights():
    """The same seed gives the same weights; another seed gives others."""

    def trained(seed):
        torch.manual_seed(seed)
        model = CNNModel()
        classification.train_model(model, labelled(32), labelled(8), 1, 1e-3, 0.0, 4)
        return state(model)

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))
