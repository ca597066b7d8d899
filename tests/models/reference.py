"""Berkeley's published networks, written down plainly: every crop, kernel and scale is the published number.

From `voc-fcn32s`, `voc-fcn16s`, `voc-fcn8s`, `voc-fcn8s-atonce` and `voc-fcn-alexnet` of
github.com/shelhamer/fcn.berkeleyvision.org (net.py and val.prototxt), without dropout, which does nothing at test
time. Nothing here comes from the library: the tests compare the two.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, tuple[Tensor, Tensor]]
"""Weight and bias of each convolution, by its layer's name; the deconvolutions are bilinear and have none."""


def voc_fcn32s(data: Tensor, w: Weights) -> Tensor:
    """(N, 3, H, W) images to the `score` blob, (N, classes, H, W)."""
    _, _, pool5 = vgg16(data, w)
    score_fr = classifier(pool5, w)
    upscore = deconvolution(score_fr, kernel=64, stride=32)
    return crop(upscore, data, 19)


def voc_fcn16s(data: Tensor, w: Weights) -> Tensor:
    """(N, 3, H, W) images to the `score` blob, (N, classes, H, W)."""
    _, pool4, pool5 = vgg16(data, w)
    score_fr = classifier(pool5, w)
    upscore2 = deconvolution(score_fr, kernel=4, stride=2)
    score_pool4 = convolution(pool4, w, "score_pool4")
    fuse_pool4 = upscore2 + crop(score_pool4, upscore2, 5)
    upscore16 = deconvolution(fuse_pool4, kernel=32, stride=16)
    return crop(upscore16, data, 27)


def voc_fcn8s(data: Tensor, w: Weights, scale_pool4: float = 1.0, scale_pool3: float = 1.0) -> Tensor:
    """(N, 3, H, W) images to the `score` blob, (N, classes, H, W)."""
    pool3, pool4, pool5 = vgg16(data, w)
    score_fr = classifier(pool5, w)
    upscore2 = deconvolution(score_fr, kernel=4, stride=2)
    score_pool4 = convolution(scale_pool4 * pool4, w, "score_pool4")
    fuse_pool4 = upscore2 + crop(score_pool4, upscore2, 5)
    upscore_pool4 = deconvolution(fuse_pool4, kernel=4, stride=2)
    score_pool3 = convolution(scale_pool3 * pool3, w, "score_pool3")
    fuse_pool3 = upscore_pool4 + crop(score_pool3, upscore_pool4, 9)
    upscore8 = deconvolution(fuse_pool3, kernel=16, stride=8)
    return crop(upscore8, data, 31)


def voc_fcn8s_atonce(data: Tensor, w: Weights) -> Tensor:
    """FCN-8s with the skips' pools scaled, so that it trains in one stage."""
    return voc_fcn8s(data, w, scale_pool4=0.01, scale_pool3=0.0001)


def voc_fcn_alexnet(data: Tensor, w: Weights) -> Tensor:
    """(N, 3, H, W) images to the `score` blob, (N, classes, H, W), over CaffeNet."""
    conv1 = F.relu(convolution(data, w, "conv1", stride=4, pad=100))
    norm1 = lrn(pool(conv1, kernel=3, stride=2))
    conv2 = F.relu(convolution(norm1, w, "conv2", pad=2, group=2))
    norm2 = lrn(pool(conv2, kernel=3, stride=2))
    conv3 = F.relu(convolution(norm2, w, "conv3", pad=1))
    conv4 = F.relu(convolution(conv3, w, "conv4", pad=1, group=2))
    conv5 = F.relu(convolution(conv4, w, "conv5", pad=1, group=2))
    pool5 = pool(conv5, kernel=3, stride=2)
    score_fr = classifier(pool5, w)
    upscore = deconvolution(score_fr, kernel=63, stride=32)
    return crop(upscore, data, 18)


NETWORKS = {
    "32s": voc_fcn32s,
    "16s": voc_fcn16s,
    "8s": voc_fcn8s,
    "8s-atonce": voc_fcn8s_atonce,
    "alexnet": voc_fcn_alexnet,
}
"""By the names of scripts/reference_networks.py."""


def vgg16(data: Tensor, w: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """pool3, pool4 and pool5."""
    x = F.relu(convolution(data, w, "conv1_1", pad=100))
    x = F.relu(convolution(x, w, "conv1_2", pad=1))
    x = pool(x, kernel=2, stride=2)
    for name in ("conv2_1", "conv2_2"):
        x = F.relu(convolution(x, w, name, pad=1))
    x = pool(x, kernel=2, stride=2)
    for name in ("conv3_1", "conv3_2", "conv3_3"):
        x = F.relu(convolution(x, w, name, pad=1))
    pool3 = pool(x, kernel=2, stride=2)
    x = pool3
    for name in ("conv4_1", "conv4_2", "conv4_3"):
        x = F.relu(convolution(x, w, name, pad=1))
    pool4 = pool(x, kernel=2, stride=2)
    x = pool4
    for name in ("conv5_1", "conv5_2", "conv5_3"):
        x = F.relu(convolution(x, w, name, pad=1))
    return pool3, pool4, pool(x, kernel=2, stride=2)


def classifier(pool5: Tensor, w: Weights) -> Tensor:
    """fc6, fc7 and score_fr: convolutions without padding."""
    fc6 = F.relu(convolution(pool5, w, "fc6"))
    fc7 = F.relu(convolution(fc6, w, "fc7"))
    return convolution(fc7, w, "score_fr")


def convolution(x: Tensor, w: Weights, name: str, stride: int = 1, pad: int = 0, group: int = 1) -> Tensor:
    weight, bias = w[name]
    return F.conv2d(x, weight, bias, stride=stride, padding=pad, groups=group)


def pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Caffe's maximum pooling: ceil((n - K) / S) + 1 windows, the last of which may reach beyond the map."""
    missing = [-(n - kernel) % stride for n in x.shape[-2:]]
    return F.max_pool2d(F.pad(x, (0, missing[1], 0, missing[0]), value=-torch.inf), kernel, stride)


def lrn(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """Caffe's LRN across channels: x / (1 + alpha / size * sum of squares of the `size` channels around) ** beta."""
    squares = F.pad(x.square(), (0, 0, 0, 0, size // 2, size // 2))
    around = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (1 + alpha / size * around) ** beta


def deconvolution(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Each channel on its own with the bilinear kernel that surgery.py writes into the published networks."""
    ramp = 1 - (torch.arange(kernel, dtype=x.dtype) - (kernel - 1) / 2).abs() / ((kernel + 1) // 2)
    channels = x.shape[1]
    return F.conv_transpose2d(x, torch.outer(ramp, ramp).repeat(channels, 1, 1, 1), stride=stride, groups=channels)


def crop(x: Tensor, like: Tensor, offset: int) -> Tensor:
    """Caffe's Crop: rows and columns of `x` from `offset` on, as many as `like` has; they must be there."""
    height, width = like.shape[-2:]
    assert x.shape[-2] >= offset + height
    assert x.shape[-1] >= offset + width
    return x[..., offset : offset + height, offset : offset + width]
