"""Makes the pairs in golden/ncnn: PYTHONPATH=.:tests python3 tests/make_ncnn.py, where pnnx is installed.

pnnx (pip install pnnx, here 20261020) is ncnn's own converter. The network has the graph of 4.25 at widths of no
published network, so that the files stay small; its weights follow from their names, see fixtures.py.
"""

import subprocess
import tempfile
from pathlib import Path

import torch
from fixtures import make_tensor
from torch import Tensor, nn

from model.IFNet_v4 import IFNet_v4
from model.networks.layers import ResConv
from model.weights.published import IFNetConfig

FOLDER = Path(__file__).parent / "golden" / "ncnn"
CONFIG = IFNetConfig((8, 8, 4, 4, 4), (16, 8, 4, 2, 1), encoder="H3", encoder_width=4, encoder_channels=4)
SIZE = 64
SEED = 7


def make_network() -> IFNet_v4:
    """Returns the network whose weights the files hold."""
    net = IFNet_v4(CONFIG)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    state = {key: torch.from_numpy(make_tensor(f"flownet/{key}", s, SEED, list(shapes))) for key, s in shapes.items()}
    net.load_state_dict(state)
    return net.eval()


class Traced(nn.Module):
    """Wraps the network as a function of tensors alone, for tracing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        return self.net(img0, img1, timestep).image


def separate(self: ResConv, x: Tensor) -> Tensor:
    """Computes ResConv as the published networks do, in operations that ncnn has."""
    return self.relu(self.conv(x) * self.beta + x)


def main() -> None:
    ResConv.forward = separate  # type: ignore[method-assign]
    frame, plane = torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 1, SIZE, SIZE)
    shapes = f"inputshape=[1,3,{SIZE},{SIZE}],[1,3,{SIZE},{SIZE}],[1,1,{SIZE},{SIZE}]"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        torch.jit.trace(Traced(make_network()), (frame, frame, plane), check_trace=False).save(f"{folder}/net.pt")
        for name, fp16 in (("fp16", 1), ("fp32", 0)):
            subprocess.run(["pnnx", "net.pt", shapes, f"fp16={fp16}"], cwd=folder, check=True)
            for suffix in (".param", ".bin"):
                made = Path(folder) / f"net.ncnn{suffix}"
                (FOLDER / f"{name}{suffix}").write_bytes(made.read_bytes())


if __name__ == "__main__":
    main()
