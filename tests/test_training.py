"""The training loops do what their docstrings say, measured from outside."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import classification_train as classification
import segmentation_train as segmentation
from classification_models import CNNModel, LinearModel
from segmentation_models import CombinedLoss, LinearSegmentation, TinyUNet, calculate_iou

CPU = torch.device("cpu")


class DictDataset(torch.utils.data.Dataset):
    def __init__(self, images, masks):
        self.images, self.masks = images, masks

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "mask": self.masks[index]}


class Counted:
    """A loader that counts how many batches were taken from it."""

    def __init__(self, loader):
        self.loader, self.taken = loader, 0

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            self.taken += 1
            yield batch


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


def test_one_epoch_equals_softmax_regression_in_numpy():
    """Plain gradient descent on softmax regression, written out by hand, gives the same weights."""
    torch.manual_seed(0)
    model, loader = LinearModel(), labelled(20, batch_size=8)
    weight = model.classifier.weight.detach().numpy().astype(np.float64)
    bias = model.classifier.bias.detach().numpy().astype(np.float64)
    losses, hits, sizes = [], [], []
    for x, y in loader:
        x, y = x.flatten(1).numpy().astype(np.float64), y.numpy()
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(len(y)), y]).mean())
        hits.append((logits.argmax(axis=1) == y).mean())
        sizes.append(len(y))
        p[np.arange(len(y)), y] -= 1
        weight, bias = weight - 0.05 * p.T @ x / len(y), bias - 0.05 * p.mean(axis=0)

    loss, accuracy = classification.train_epoch(
        model, loader, sgd(model), nn.CrossEntropyLoss(), CPU
    )
    np.testing.assert_allclose(model.classifier.weight.detach(), weight, atol=1e-5)
    np.testing.assert_allclose(model.classifier.bias.detach(), bias, atol=1e-5)
    assert loss == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert accuracy == pytest.approx(np.average(hits, weights=sizes))


@pytest.mark.parametrize("max_steps, expected", [(1, 1), (3, 3), (None, 5), (99, 5)])
def test_max_steps_takes_exactly_so_many_batches(max_steps, expected):
    for loader, model, criterion, train_epoch in (
        (labelled(40), LinearModel(), nn.CrossEntropyLoss(), classification.train_epoch),
        (
            masked(40),
            TinyUNet(base_channels=2),
            CombinedLoss(),
            segmentation.train_segmentation_epoch,
        ),
    ):
        counted = Counted(loader)
        optimizer = sgd(model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        train_epoch(model, counted, optimizer, criterion, CPU, max_steps, scheduler=scheduler)
        assert counted.taken == expected
        assert scheduler.last_epoch == expected, "the scheduler steps once for each batch"


def test_gradients_left_over_do_not_leak_into_the_step():
    model = LinearModel()
    clean = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)  # left over from somebody else
    for m in (model, clean):
        classification.train_epoch(m, labelled(8), sgd(m), nn.CrossEntropyLoss(), CPU)
    assert same(state(model), state(clean))


def test_segmentation_epoch_averages_over_images():
    model, loader = TinyUNet(base_channels=2), masked(20, batch_size=8)
    optimizer = sgd(model, rate=0.0)  # nothing changes, so every batch can be scored afterwards
    loss, iou = segmentation.train_segmentation_epoch(model, loader, optimizer, CombinedLoss(), CPU)
    with torch.no_grad():  # in training mode: batch norm uses the batch's own statistics
        parts = [(model(b["image"]), b["mask"]) for b in loader]
    sizes = [8, 8, 4]
    losses = [CombinedLoss()(p, m).item() for p, m in parts]
    ious = [calculate_iou(p, m) for p, m in parts]
    assert loss == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    assert iou == pytest.approx(np.average(ious, weights=sizes), abs=1e-6)


def test_validation_changes_nothing_and_runs_in_evaluation_mode():
    for model, loader, criterion, validate in (
        (CNNModel(), labelled(20), nn.CrossEntropyLoss(), classification.validate_epoch),
        (TinyUNet(), masked(20), CombinedLoss(), segmentation.validate_segmentation_epoch),
    ):
        model.train()
        before, modes, recorded = state(model), set(), set()

        def watch(module, inputs, output, modes=modes, recorded=recorded):
            modes.add(module.training)
            recorded.add(output.requires_grad)

        model.register_forward_hook(watch)
        first = validate(model, loader, criterion, CPU)
        assert same(before, state(model))
        assert modes == {False}
        assert recorded == {False}
        assert validate(model, loader, criterion, CPU) == first


def test_validation_equals_a_computation_on_all_images_at_once():
    model, loader = CNNModel(), labelled(20, batch_size=8)
    loss, accuracy = classification.validate_epoch(model, loader, nn.CrossEntropyLoss(), CPU)
    x, y = loader.dataset.tensors
    logits = model.eval()(x)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item())


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    model = LinearModel()
    before = state(model)
    x = images(8)
    x[3, 0, 0, 0] = math.nan
    loader = DataLoader(TensorDataset(x, torch.zeros(8, dtype=torch.long)), 8)
    with pytest.raises(FloatingPointError, match="nan"):
        classification.train_epoch(model, loader, sgd(model), nn.CrossEntropyLoss(), CPU)
    assert same(before, state(model))


def test_history_has_one_entry_an_epoch_and_training_helps():
    torch.manual_seed(0)
    history = classification.train_model(LinearModel(), labelled(90), labelled(90), 4, 1e-3, 0.0, 5)
    assert set(history) == {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert {len(values) for values in history.values()} == {4}
    assert history["val_loss"][-1] < history["val_loss"][0]

    history = segmentation.train_segmentation_model(
        TinyUNet(base_channels=4), masked(32), masked(16), 3, 1e-2, 0.0, 4
    )
    assert set(history) == {"train_loss", "train_iou", "val_loss", "val_iou"}
    assert {len(values) for values in history.values()} == {3}
    assert history["val_loss"][-1] < history["val_loss"][0]


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


@both_tasks
def test_weight_decay_shrinks_the_weights(train, make, loader, make_loss, metric):
    def size(weight_decay):
        torch.manual_seed(0)
        model = make()
        train(model, loader(16), loader(16), 1, 1e-2, weight_decay, 2)
        return sum(p.abs().sum().item() for p in model.parameters() if p.ndim == 2)

    assert size(30.0) < 0.8 * size(0.0)


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


class Parrot(nn.Module):
    """Answers the masks that it finds in the images' first channel."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images[:, :1]


def test_evaluation_scores_each_image_by_itself():
    rng = np.random.default_rng(0)
    answers = (rng.random((10, 1, 28, 28)) > 0.5).astype(np.float32)
    truth = (rng.random((10, 1, 28, 28)) > rng.random((10, 1, 1, 1))).astype(np.float32)
    truth[3], answers[3] = 0, 0  # nothing there, nothing found
    pictures = torch.from_numpy(np.repeat(answers, 3, axis=1))
    loader = DataLoader(DictDataset(pictures, torch.from_numpy(truth)), 4)
    result = segmentation.evaluate_segmentation_model(Parrot(), loader, "boxes")
    union = np.maximum(answers, truth).sum((1, 2, 3))
    ious = np.where(union > 0, (answers * truth).sum((1, 2, 3)) / np.maximum(union, 1), 1.0)
    assert result["total_samples"] == 10
    assert result["dataset"] == "boxes"
    assert result["mean_iou"] == pytest.approx(ious.mean(), abs=1e-6)
    assert result["std_iou"] == pytest.approx(ious.std(), abs=1e-6) and ious.std() > 0.1


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
