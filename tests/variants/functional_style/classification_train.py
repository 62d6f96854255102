"""A training that zeroes the gradients after each step, and weighs batch means."""

import numpy as np
import torch
import torch.nn.functional as F


def _step(model, batch, criterion, device):
    images, labels = (part.to(device) for part in batch)
    logits = model(images)
    return criterion(logits, labels), (logits.argmax(-1) == labels).float(), len(labels)


def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    """The gradients are cleared at the end of each step, and once before the first."""
    model.train()
    optimizer.zero_grad(set_to_none=False)
    losses, right, sizes = [], [], []
    batches = iter(train_loader)
    while max_steps is None or len(sizes) < max_steps:
        try:
            batch = next(batches)
        except StopIteration:
            break
        loss, hits, size = _step(model, batch, criterion, device)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.detach())
        right.append(hits)
        sizes.append(size)
    weights = torch.tensor(sizes, dtype=torch.float32)
    return (torch.stack(losses) @ weights / weights.sum()).item(), torch.cat(right).mean().item()


@torch.inference_mode()
def validate_epoch(model, val_loader, criterion, device):
    was_training = model.training
    model.eval()
    results = [_step(model, batch, criterion, device) for batch in val_loader]
    model.train(was_training)
    loss = np.average([r[0].item() for r in results], weights=[r[2] for r in results])
    return loss, torch.cat([r[1] for r in results]).mean()


def train_model(
    model,
    train_loader,
    val_loader,
    epochs=1,
    learning_rate=1e-3,
    weight_decay=0.0,
    max_steps_per_epoch=None,
    verbose=False,
):
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay
    )
    history = {
        "train_loss": [],
        "train_acc": [],
        "val_loss": [],
        "val_acc": [],
        "learning_rate": [],
    }
    for _ in range(epochs):
        scores = train_epoch(
            model, train_loader, optimizer, F.cross_entropy, "cpu", max_steps_per_epoch
        )
        scores += validate_epoch(model, val_loader, F.cross_entropy, "cpu")
        for name, score in zip(
            ("train_loss", "train_acc", "val_loss", "val_acc"), scores, strict=True
        ):
            history[name].append(score)
        history["learning_rate"].append(learning_rate)
    return history
