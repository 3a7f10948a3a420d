"""The network."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutions and a linear layer: images of any size to one score (logit) per class.

    Args:
        classes: number of classes.
        channels: channels of the images, 1 for gray and 3 for color.
        width: channels after the first convolution; the others have twice as many.
        dropout: fraction of the features that is zeroed in training.
    """

    def __init__(self, classes: int, channels: int = 1, width: int = 32, dropout: float = 0.1):
        super().__init__()
        self.features = nn.Sequential(
            make_block(channels, width),
            make_block(width, 2 * width),
            nn.MaxPool2d(2),
            make_block(2 * width, 2 * width),
        )
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [batch, channels, height, width] to logits [batch, classes]."""
        features: Tensor = self.features(images)
        # not AdaptiveAvgPool2d, whose gradient on a GPU differs from run to run
        pooled = features.mean(dim=(2, 3))
        logits: Tensor = self.classify(pooled)
        return logits


def make_block(inputs: int, outputs: int) -> nn.Sequential:
    """Make a 3x3 convolution that keeps height and width, batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
