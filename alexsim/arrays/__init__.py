"""Files that hold the pixels of many images as they are: MNIST's IDX, and CIFAR's batches."""
