"""A segmenter's training as tutorials write it: no list of IoUs but sums, Adam."""

import numpy as np
import torch
import torch.optim as optim

from segmentation_models import CombinedLoss, calculate_iou


def train_segmentation_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    model.train()
    total_loss, total_iou, count = 0, 0, 0
    for i, batch in enumerate(train_loader):
        if max_steps and i >= max_steps:
            break
        images = batch["image"].to(device)
        masks = batch["mask"].to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, masks)
        loss.backward()
        optimizer.step()
        n = images.shape[0]
        total_loss += n * loss.item()
        with torch.no_grad():
            total_iou += n * calculate_iou(outputs, masks)
        count += n
    return total_loss / count, total_iou / count


def validate_segmentation_epoch(model, val_loader, criterion, device):
    model.eval()
    total_loss, total_iou, count = 0, 0, 0
    with torch.no_grad():
        for batch in val_loader:
            images = batch["image"].to(device)
            masks = batch["mask"].to(device)
            outputs = model(images)
            n = images.shape[0]
            total_loss += n * criterion(outputs, masks).item()
            total_iou += n * calculate_iou(outputs, masks)
            count += n
    return total_loss / count, total_iou / count


def train_segmentation_model(
    model, train_loader, val_loader, epochs, learning_rate, weight_decay, max_steps_per_epoch
):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    criterion = CombinedLoss()
    optimizer = optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history = {"train_loss": [], "train_iou": [], "val_loss": [], "val_iou": []}
    for _epoch in range(epochs):
        a, b = train_segmentation_epoch(
            model, train_loader, optimizer, criterion, device, max_steps_per_epoch
        )
        c, d = validate_segmentation_epoch(model, val_loader, criterion, device)
        for key, value in zip(history, (a, b, c, d), strict=True):
            history[key].append(value)
    return history


def evaluate_segmentation_model(model, test_loader, dataset_name):
    device = next(model.parameters()).device
    model.eval()
    ious = []
    with torch.no_grad():
        for batch in test_loader:
            outputs = model(batch["image"].to(device))
            for output, mask in zip(outputs, batch["mask"].to(device), strict=True):
                ious.append(calculate_iou(output.unsqueeze(0), mask.unsqueeze(0)))
    return {
        "mean_iou": np.mean(ious),
        "std_iou": np.std(ious),
        "total_samples": len(ious),
        "dataset": dataset_name,
    }


def visualize_predictions(model, dataset, num_samples=6, save_path=None):
    pass
