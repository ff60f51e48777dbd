"""Images: folders, packed sets, minibatches; knows nothing of training."""
