"""Computes the features of one frame, which both of its pairs use: the encoder of the v4 networks from 4.7 on."""

from torch import Tensor, nn

from model.networks.layers import LEAKY_SLOPE, deconv, match_format


class Head(nn.Module):
    """Computes features of one frame at full size; H2 and H3 are one graph under different keys, H1 has two layers."""

    def __init__(self, kind: str, width: int, channels: int) -> None:
        super().__init__()
        first = nn.Conv2d(3, width, 3, 2, 1)
        if kind == "H1":
            layers: dict[str, nn.Module] = {"0": first, "1": deconv(width, channels)}
        else:
            names = ("cnn0", "cnn1", "cnn2", "cnn3") if kind == "H3" else ("0", "2", "4", "6")
            middle = [nn.Conv2d(width, width, 3, 1, 1) for _ in range(2)]
            layers = dict(zip(names, (first, *middle, deconv(width, channels)), strict=True))
        self.leaky = kind != "H1"
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the features (B,channels,H,W) of an image (B,3,H,W)."""
        *layers, last = self.children()
        x = match_format(image, last)  # (B,3,H,W)
        for layer in layers:
            x = layer(x)  # (B,width,H/2,W/2)
            if self.leaky:
                x = nn.functional.leaky_relu(x, LEAKY_SLOPE, inplace=True)
        return last(x).float().contiguous()  # (B,channels,H,W)
