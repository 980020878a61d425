"""The published SkullGAN stated in PyTorch: the reference in tests and the peer in benchmarks.

Images are NCHW. Everything is float32 unless the networks and the inputs are made double.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

GENERATOR_PARAMETERS = 192_002_304  # at nc=1, nz=200, ngf=256
DISCRIMINATOR_PARAMETERS = 11_164_353  # at nc=1, ndf=64


def parameter_count(module):
    """The number of trainable scalars of `module`."""
    return sum(p.numel() for p in module.parameters())


def texture_noise(x, eps=None):
    """Return x + where(keep, x, 0) * eps * std(x), per sample and per channel.

    x: (B, C, H, W). eps: (B, C, H, W), standard normal, drawn here if None. Result: (B, C, H, W).
    keep is -max(x)/2 <= x <= max(x)/4 and carries no gradient; std divides by H*W - 1 and does carry one.
    """
    if eps is None:
        eps = torch.randn_like(x)
    with torch.no_grad():
        top = x.amax(dim=(2, 3), keepdim=True)
        keep = (x >= -top / 2) & (x <= top / 4)
    std = x.std(dim=(2, 3), correction=1, keepdim=True)
    return x + torch.where(keep, x, torch.zeros_like(x)) * eps * std


class Generator(nn.Module):
    """z (B, nz, 1, 1) -> image (B, nc, 128, 128) in (-1, 1). ngf must be a multiple of 16."""

    def __init__(self, nc=1, nz=200, ngf=256):
        super().__init__()
        if ngf < 16 or ngf % 16:
            raise ValueError(f"ngf must be a positive multiple of 16, got {ngf}")
        self.nc, self.nz, self.ngf = nc, nz, ngf

        def up(cin, cout, stride, pad):
            return nn.ConvTranspose2d(cin, cout, 4, stride, pad, bias=False)

        def block(cin, cout, stride=2, pad=1):
            return nn.Sequential(up(cin, cout, stride, pad), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))

        self.main1 = block(nz, 16 * ngf, 1, 0)  # 4 x 4
        self.main2 = block(16 * ngf, 8 * ngf)  # 8 x 8
        self.main3 = block(8 * ngf, 4 * ngf)  # 16 x 16
        self.main4 = block(4 * ngf, 2 * ngf)  # 32 x 32
        self.main5 = block(2 * ngf, ngf)  # 64 x 64
        self.main6 = nn.Sequential(up(ngf, ngf // 2, 2, 1))  # 128 x 128 from here on
        self.conv1 = nn.Conv2d(ngf // 2, ngf // 4, 3, padding=1)
        self.conv2 = nn.Conv2d(ngf // 4, ngf // 8, 3, padding=1)
        self.conv3 = nn.Conv2d(ngf // 8, ngf // 16, 3, padding=1)
        self.conv4 = nn.Conv2d(ngf // 16, nc, 3, padding=1, bias=False)

    def forward(self, z, noise=None):
        """Image (B, nc, 128, 128) from z (B, nz, 1, 1).

        noise: the two eps, (B, ngf/2, 128, 128) and (B, ngf/8, 128, 128); drawn from torch.randn if None.
        """
        first, second = (None, None) if noise is None else noise
        x = self.main5(self.main4(self.main3(self.main2(self.main1(z)))))
        x = texture_noise(self.main6(x), first)
        x = texture_noise(self.conv2(self.conv1(x)), second)
        return torch.tanh(self.conv4(self.conv3(x)))


class Discriminator(nn.Module):
    """Image (B, nc, 128, 128) -> probability of being real (B,)."""

    def __init__(self, nc=1, ndf=64):
        super().__init__()
        self.nc, self.ndf = nc, ndf
        layers = [nn.Conv2d(nc, ndf, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for width in (ndf, 2 * ndf, 4 * ndf, 8 * ndf):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.main = nn.Sequential(*layers, nn.Conv2d(16 * ndf, 1, 4, 1, 0), nn.Sigmoid())

    def forward(self, x):
        """Probabilities (B,) of x (B, nc, 128, 128)."""
        return self.main(x).flatten()

    def logits(self, x):
        """What the sigmoid is given: (B,) of x (B, nc, 128, 128)."""
        return self.main[:-1](x).flatten()


@torch.no_grad()
def init_weights(module):
    """Draw the published initial weights into every layer inside `module`; returns `module`.

    Convolution weights N(0, 0.01) and BatchNorm scales N(1, 0.01), both standard deviations; shifts 0.
    Convolution biases stay as torch made them.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.01)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.01)
            nn.init.zeros_(layer.bias)
    return module


def gaussian_blur(x, sigma):
    """3x3 Gaussian blur with reflected edges, channel by channel: (B, C, H, W) -> (B, C, H, W)."""
    k = torch.arange(-1, 2, dtype=x.dtype, device=x.device)
    taps = torch.exp(-0.5 * (k / sigma) ** 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)


def blur_sigma(epoch):
    """Width, in pixels, of the blur of the replaced places at `epoch` (0-based, above 0)."""
    return max(0.5, 15 / epoch)


def blurred_places(epoch, batch):
    """How many of `batch` fakes are replaced by blurred reals at `epoch` (0-based)."""
    if epoch <= 15:
        return 0
    return epoch - 15 if epoch <= batch else batch // 2


class Trainer:
    """Both networks with their optimisers and schedules; `step` is one published iteration."""

    def __init__(
        self,
        net_g,
        net_d,
        *,
        lr=3e-4,
        betas=(0.5, 0.999),
        eps=1e-8,
        patience=1000,
        factor_g=0.5,
        factor_d=0.8,
        gate_epochs=10,
        gate_loss=0.9,
        real_target=0.9,
    ):
        self.net_g, self.net_d = net_g.train(), net_d.train()
        self.opt_g = torch.optim.Adam(net_g.parameters(), lr=lr, betas=betas, eps=eps)
        self.opt_d = torch.optim.Adam(net_d.parameters(), lr=lr, betas=betas, eps=eps)
        plateau = {"mode": "min", "threshold": 1e-4, "threshold_mode": "rel", "patience": patience}
        plateau |= {"cooldown": 0, "min_lr": 0.0, "eps": 1e-8}
        self.schedule_g = ReduceLROnPlateau(self.opt_g, factor=factor_g, **plateau)
        self.schedule_d = ReduceLROnPlateau(self.opt_d, factor=factor_d, **plateau)
        self.gate_epochs, self.gate_loss, self.real_target = gate_epochs, gate_loss, real_target
        self.bce = nn.BCELoss()

    def _loss(self, probs, target):
        return self.bce(probs, torch.full_like(probs, target))

    def _finish(self, optimizer, schedule, epoch, loss):
        """Step if the gate is open, then show the schedule the loss; returns whether it stepped."""
        stepped = epoch < self.gate_epochs or loss > self.gate_loss
        if stepped:
            optimizer.step()
        schedule.step(loss)
        return stepped

    def _mix(self, fake, blur_source, epoch):
        """`fake` (B, nc, H, W) with its last places taken by the blurred last rows of `blur_source`."""
        n = blurred_places(epoch, len(fake))
        if n == 0:
            return fake
        if blur_source is None or len(blur_source) < n:
            raise ValueError(f"epoch {epoch} needs at least {n} images to blur")
        return torch.cat([fake[: len(fake) - n], gaussian_blur(blur_source[-n:], blur_sigma(epoch)).detach()])

    def step(self, reals, blur_source, z, noise, epoch):
        """One iteration.

        reals: (B, nc, 128, 128) in [-1, 1]. blur_source: independently drawn reals, (B, nc, 128, 128), of
        which the last n rows are used; None will do up to epoch 15. z: (B, nz, 1, 1). noise: as
        Generator.forward takes it, or None. epoch: 0-based.

        Returns numbers: loss_d, loss_g; d_real, d_fake, d_fake_after, the mean probabilities of the reals,
        of the fake batch as D sees it (replaced places and all), and of that batch after D's update;
        lr_d, lr_g as the schedules leave them, for the next step; d_stepped, g_stepped (bool). D's .grad
        is left holding the gradient of loss_d, G's that of loss_g.
        """
        self.opt_d.zero_grad()
        probs_real = self.net_d(reals)
        loss_real = self._loss(probs_real, self.real_target)
        loss_real.backward()

        fake = self._mix(self.net_g(z, noise), blur_source, epoch)
        probs_fake = self.net_d(fake.detach())
        loss_fake = self._loss(probs_fake, 0.0)
        loss_fake.backward()
        seen = torch.stack([loss_real + loss_fake, probs_real.mean(), probs_fake.mean()])
        loss_d, d_real, d_fake = seen.tolist()
        d_stepped = self._finish(self.opt_d, self.schedule_d, epoch, loss_d)

        self.opt_g.zero_grad()
        self.net_d.requires_grad_(False)  # only G's gradient is wanted, and D's stays for inspection
        probs_after = self.net_d(fake)
        loss = self._loss(probs_after, 1.0)
        loss.backward()
        self.net_d.requires_grad_(True)
        loss_g, d_fake_after = torch.stack([loss, probs_after.mean()]).tolist()
        g_stepped = self._finish(self.opt_g, self.schedule_g, epoch, loss_g)

        values = {"loss_d": loss_d, "loss_g": loss_g, "d_real": d_real, "d_fake": d_fake}
        values |= {"d_fake_after": d_fake_after, "d_stepped": d_stepped, "g_stepped": g_stepped}
        values |= {"lr_d": self.opt_d.param_groups[0]["lr"], "lr_g": self.opt_g.param_groups[0]["lr"]}
        return values
