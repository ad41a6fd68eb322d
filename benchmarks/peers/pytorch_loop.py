"""Rounds of an image workload as a plain PyTorch loop over clients, for comparison.

Runs in an environment of its own with PyTorch and NumPy, told what to do by lines of JSON on
standard input and answering with one line each; `benchmarks.peers.compare` starts it and takes
turns with the engine. Nothing of the engine is imported.

    {"arrays": FILE.npz, "batch_size": 10, "learning_rate": 0.1, "dropout": [0.25, 0.5],
     "channels_last": false, "threads": 2}   ->   {"torch": "2.13.0", "threads": 2}
    {"cohort": [3, 14, 15]}   ->   {"seconds": 2.9}
    {"save": FILE.npz}        ->   {"saved": FILE.npz}
"""

import json
import sys
import time

import numpy as np

# In an environment of its own, not in that of the type checker.
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

NAMES = ("conv1", "conv2", "dense1", "dense2")


def forward(params, x, dropout):
    """Outputs of the CNN; 3x3 convolutions, max-pooling 2x2, two dense layers."""
    conv1_w, conv1_b, conv2_w, conv2_b, dense1_w, dense1_b, dense2_w, dense2_b = params
    x = F.relu(F.conv2d(x, conv1_w, conv1_b))
    x = F.relu(F.conv2d(x, conv2_w, conv2_b))
    x = F.dropout(F.max_pool2d(x, 2), dropout[0])
    x = F.dropout(F.relu(F.linear(x.flatten(1), dense1_w, dense1_b)), dropout[1])
    return F.linear(x, dense2_w, dense2_b)


def to_torch(arrays, channels_last):
    """Parameters in PyTorch's layout; what is flattened after pooling is channels first."""
    params = []
    for name in NAMES:
        w = arrays[f"{name}_w"]
        if name.startswith("conv"):
            w = torch.tensor(w.transpose(3, 2, 0, 1).copy())
            if channels_last:
                w = w.contiguous(memory_format=torch.channels_last)
        elif name == "dense1":
            channels = arrays["conv2_w"].shape[3]
            side = round((w.shape[0] // channels) ** 0.5)
            w = w.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(w.shape[1], -1)
            w = torch.tensor(w.copy())
        else:
            w = torch.tensor(w.T.copy())
        params += [w, torch.tensor(arrays[f"{name}_b"])]
    return params


def to_numpy(params):
    """The inverse of `to_torch`."""
    arrays = {}
    for number, name in enumerate(NAMES):
        w = params[2 * number].contiguous().numpy()
        if name.startswith("conv"):
            w = w.transpose(2, 3, 1, 0)
        elif name == "dense1":
            channels = params[2].shape[0]
            side = round((w.shape[1] // channels) ** 0.5)
            w = w.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(w.shape[1], -1)
        else:
            w = w.T
        arrays[f"{name}_w"] = np.ascontiguousarray(w)
        arrays[f"{name}_b"] = params[2 * number + 1].numpy()
    return arrays


class Loop:
    """The clients' data, the server's parameters and one federated round."""

    def __init__(self, arrays, batch_size, learning_rate, dropout, channels_last):
        """Reads the arrays of the workload."""
        loaded = np.load(arrays)
        form = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.tensor(loaded["x"].transpose(0, 3, 1, 2).copy())
        self.x = x.contiguous(memory_format=form)
        self.y = torch.tensor(loaded["y"].astype(np.int64))
        self.offsets = np.concatenate([[0], np.cumsum(loaded["sizes"])])
        self.params = to_torch(loaded, channels_last)
        self.batch_size, self.learning_rate, self.dropout = batch_size, learning_rate, dropout

    def round(self, cohort):
        """FedAvg: one epoch of SGD at every client, the mean weighted by examples."""
        total = [torch.zeros_like(p) for p in self.params]
        weights = 0
        for client in cohort:
            start, stop = self.offsets[client], self.offsets[client + 1]
            local = [p.clone().requires_grad_() for p in self.params]
            optimizer = torch.optim.SGD(local, lr=self.learning_rate)
            for first in range(start, stop, self.batch_size):
                rows = slice(first, min(first + self.batch_size, stop))
                loss = F.cross_entropy(forward(local, self.x[rows], self.dropout), self.y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            weight = int(stop - start)
            weights += weight
            with torch.no_grad():
                for sum_, p in zip(total, local, strict=True):
                    sum_.add_(p, alpha=weight)
        self.params = [sum_ / weights for sum_ in total]


def answer(request, loops):
    """Does what is asked of the last of the loops, or starts one."""
    if "arrays" in request:
        torch.set_num_threads(request.pop("threads"))
        loops.append(Loop(**request))
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if "cohort" in request:
        start = time.perf_counter()
        loops[-1].round(request["cohort"])
        return {"seconds": time.perf_counter() - start}
    np.savez(request["save"], **to_numpy(loops[-1].params))
    return {"saved": request["save"]}


def main():
    """Answers requests until standard input ends."""
    loops = []
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), loops)), flush=True)


if __name__ == "__main__":
    main()
