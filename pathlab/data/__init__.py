"""Where images come from: data sets, downloads, the drawn stand-in, boxes, augmentation."""
