"""The network."""

from torch import Tensor, nn


class Regressor(nn.Module):
    """Two linear layers: a row of numbers to one number."""

    def __init__(self, columns: int, width: int = 32, dropout: float = 0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(columns, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows [batch, columns] to numbers [batch]."""
        numbers: Tensor = self.layers(rows).squeeze(-1)
        return numbers
