"""Masked image modelling: restore hidden patches. SparK (Tian et al. 2023) and MAE (He et al. 2022)."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.models.resnet import RESNETS, encoder, seeded_weights
from kidney_ssl.models.sparse import empty_places, places
from kidney_ssl.models.timm_encoder import TimmEncoder
from kidney_ssl.models.unet import UNet, unet

SPARK, MAE = 0.6, 0.75  # shares of hidden patches, as in the papers
EPSILON = 1e-6  # added to the variance of a patch, as in both papers' code
SPREAD = 0.02  # standard deviation of the initial embedding of a hidden place
LEAST = 4  # patches in a row of a small slice
WIDTH, DEPTH, HEADS = 512, 8, 16  # of the transformer that decodes tokens, as in the paper on MAE


class MaskedOptions(Options):
    """Options of masked image modelling.

    Attributes:
        ratio: share of the patches that is hidden; null for the papers': 0.6 for convolutional encoders, 0.75 for
            vision transformers.
        patch: side of a patch in pixels. null: a transformer's own patch; for convolutional encoders the stride of the
            last map (32 for ResNet), as in the paper, or a quarter of the slice if that is less. A transformer needs a
            multiple of its own.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    patch: Annotated[int, Field(ge=2)] | None = None


class Method(Pretext):
    """An encoder that sees some patches of a slice, and a light decoder that restores the others.

    L = mean over hidden pixels of (y - (x - m) / s)^2, with m and s^2 the mean and variance of the pixel's patch. The
    trivial predictor gives every patch its own mean: y = 0.

    In a convolutional encoder hidden places stay empty in every map (`empty_places`). A learned embedding fills them in
    each map, and the decoder is the U-Net's. Of a vision transformer only the visible tokens are computed; the decoder
    is a transformer. The exported encoder is an ordinary one.
    """

    Parameters = MaskedOptions

    def __init__(self, setting: Setting, options: MaskedOptions) -> None:
        """Build the network.

        Raises:
            InputError: the patches do not fit the slice, or the network is of a kind that cannot leave patches out.
        """
        super().__init__(setting, options)
        made, size = _autoencoder(setting), setting.image_size
        self.encoder, self.network = made.encoder, made
        self.side = options.patch or made.usual
        self.grid = size // self.side
        if self.grid < 2 or self.grid * self.side != size or self.side % made.least:
            raise InputError(
                f"masked: options.patch: patches of {self.side} px do not fit slices of {size} px; give a side that "
                f"divides {size} by two or more and is a multiple of {made.least}, for {setting.network}"
            )
        count = self.grid**2
        self.hidden = min(max(1, round((options.ratio or made.ratio) * count)), count - 1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the hidden patches of `count` slices, (count, grid^2) bool; the same number in each."""
        chance = torch.rand((count, self.grid**2), generator=generator, device=generator.device)
        return chance.argsort(1).argsort(1) < self.hidden

    def restored(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Normalised pixels told from the visible patches, (B, grid^2, side^2); see `patches` for their order."""
        visible = self.pixels(~hidden)
        seen = torch.where(visible, images, 0)  # no product: what is hidden must not matter at all
        return patches(self.network.restored(seen, visible), self.side).float()

    def pixels(self, chosen: Tensor) -> Tensor:
        """Patches (B, grid^2) bool as pixels (B, 1, S, S)."""
        shown = chosen.view(-1, 1, self.grid, self.grid)
        return shown.repeat_interleave(self.side, 2).repeat_interleave(self.side, 3)

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the squared error of the hidden pixels as grey values."""
        hidden = self.draw(len(images), generator)
        target, _, deviation = normalized(patches(images, self.side))
        squared = (self.restored(images, hidden) - target).square()
        grey = (squared.detach() * deviation.square()).mean(2)
        return _over(squared.mean(2), hidden).mean(), {"mse": _over(grey, hidden).mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and squared error of the hidden pixels as grey values, each with that of a patch's own mean."""
        hidden = self.draw(len(images), generator)
        target, _, deviation = normalized(patches(images, self.side))
        found = {}
        for name, told in {"": self.restored(images, hidden), "_mean": torch.zeros_like(target)}.items():
            squared = (told - target).square()
            found[f"loss{name}"] = _over(squared.mean(2), hidden)
            found[f"mse{name}"] = _over((squared * deviation.square()).mean(2), hidden)
        return found

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """What the encoder sees, the slice, and the slice with hidden patches restored by their own mean and spread."""
        hidden = self.draw(len(images), generator)
        _, mean, deviation = normalized(patches(images, self.side))
        told = assembled(self.restored(images, hidden) * deviation + mean, self.side).clamp(0, 1)
        covered = self.pixels(hidden)
        shown = [torch.where(covered, 0, images), images, torch.where(covered, told, images)]
        return {"restored": Picture(torch.cat(shown, 1), ("visible", "original", "restored"))}


class Autoencoder(nn.Module, ABC):
    """An encoder that leaves hidden patches out, and a decoder that restores them.

    Its method is not `forward`, which may be compiled: the hooks of one pass would stay in all later ones.

    Attributes:
        encoder: the ordinary encoder.
        ratio: the usual share of hidden patches.
        usual: the usual side of a patch in pixels.
        least: the side of every patch is a multiple of it, in pixels.
    """

    encoder: nn.Module
    ratio: float
    usual: int
    least: int

    @abstractmethod
    def restored(self, seen: Tensor, visible: Tensor) -> Tensor:
        """Restored pixels (B, 1, S, S), from images with hidden pixels of 0, and what is visible, bool, as large."""


class SparseAutoencoder(Autoencoder):
    """A U-Net on a convolutional encoder that computes nothing in hidden places."""

    ratio, least = SPARK, 1

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.unet: UNet = unet(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        self.unet.segmentation_head[-1] = nn.Identity()  # type: ignore[operator] # normalised pixels are no shares
        self.encoder = self.unet.encoder
        channels = list(self.unet.encoder.out_channels)
        self.usual = min(2 ** (len(channels) - 1), setting.image_size // LEAST)
        self.levels = [level for level, width in enumerate(channels) if level and width]
        with seeded_weights(setting.seed):
            self.fillers = nn.ParameterList(SPREAD * torch.randn(channels[level]) for level in self.levels)

    def restored(self, seen: Tensor, visible: Tensor) -> Tensor:
        """See `Autoencoder`."""
        with empty_places(self.encoder, visible):
            maps = self.encoder.maps(seen) if isinstance(self.encoder, TimmEncoder) else self.encoder.forward(seen)
        for level, filler in zip(self.levels, self.fillers, strict=True):
            known = places(visible, maps[level].shape[2:])
            maps[level] = torch.where(known, maps[level], filler.to(maps[level].dtype)[:, None, None])
        return self.unet.decode(maps)


class TokenAutoencoder(Autoencoder):
    """A vision transformer that computes the visible tokens only, and a transformer that restores the others."""

    ratio = MAE
    encoder: TimmEncoder

    def __init__(self, encoder: TimmEncoder, seed: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block  # noqa: PLC0415 - seconds of imports

        self.encoder = encoder
        self.usual = self.least = int(encoder.model.patch_embed.patch_size[0])
        for part in (encoder.model.attn_pool, encoder.model.fc_norm):  # behind the tokens: several processes would wait
            if part is not None:
                part.requires_grad_(False)
        with seeded_weights(seed):
            self.widen = nn.Linear(encoder.model.embed_dim, WIDTH)
            self.filler = nn.Parameter(SPREAD * torch.randn(WIDTH))
            self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, qkv_bias=True) for _ in range(DEPTH)))
            self.norm = nn.LayerNorm(WIDTH)
            self.tell = nn.Linear(WIDTH, self.least**2)
            for module in (self.widen, self.tell, *self.blocks.modules()):
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def restored(self, seen: Tensor, visible: Tensor) -> Tensor:
        """See `Autoencoder`; a token is wholly visible or wholly hidden."""
        from timm.layers import build_sincos2d_pos_embed  # noqa: PLC0415 - as above

        rows = seen.shape[-1] // self.least
        known = places(visible, (rows, rows)).flatten(1)
        count = int(known[0].sum())  # the same in each slice
        order = known.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
        tokens = self.widen(self._encoded(seen, order))
        first = tokens.shape[1] - count  # class and register tokens
        at = order[:, :, None].expand(-1, -1, WIDTH)
        given = self.filler.to(tokens.dtype).expand(len(seen), rows**2, WIDTH).scatter(1, at, tokens[:, first:])
        given = given + build_sincos2d_pos_embed([rows, rows], WIDTH, device=seen.device)
        told = self.tell(self.norm(self.blocks(torch.cat([tokens[:, :first].to(given.dtype), given], 1))))
        return assembled(told[:, first:], self.least)

    def _encoded(self, seen: Tensor, order: Tensor) -> Tensor:
        """Class and register tokens, and the visible ones by their numbers (B, n), in the encoder's width."""
        model: Any = self.encoder.model
        first = int(model.num_prefix_tokens)

        def kept(_: nn.Module, given: Any, tokens: Tensor) -> Tensor:
            at = order[:, :, None].expand(-1, -1, tokens.shape[2])
            return torch.cat([tokens[:, :first], tokens[:, first:].gather(1, at)], 1)

        hook = model.patch_drop.register_forward_hook(kept)  # behind the positions, before the blocks
        try:
            encoded: Tensor = model.forward_features(seen)
        finally:
            hook.remove()
        return encoded


def patches(images: Tensor, side: int) -> Tensor:
    """Pixels of each patch, row by row: (B, 1, S, S) -> (B, (S / side)^2, side^2)."""
    rows = images.shape[-1] // side
    return images.view(-1, rows, side, rows, side).transpose(2, 3).reshape(-1, rows**2, side**2)


def assembled(pixels: Tensor, side: int) -> Tensor:
    """The inverse of `patches`."""
    rows = round(pixels.shape[1] ** 0.5)
    return pixels.view(-1, rows, rows, side, side).transpose(2, 3).reshape(-1, 1, rows * side, rows * side)


def normalized(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, N, P) less their mean and by their standard deviation; and these, (B, N, 1) each."""
    mean, deviation = pixels.mean(2, keepdim=True), (pixels.var(2, keepdim=True) + EPSILON).sqrt()
    return (pixels - mean) / deviation, mean, deviation


def _over(values: Tensor, hidden: Tensor) -> Tensor:
    """Means (B,) of values (B, N) over the hidden patches."""
    return torch.where(hidden, values, 0).sum(1) / hidden.sum(1)


def _autoencoder(setting: Setting) -> Autoencoder:
    """The one of a network's kind.

    Raises:
        InputError: the network is neither convolutional nor a plain vision transformer of timm.
    """
    network = setting.network
    if network in RESNETS:
        return SparseAutoencoder(setting)
    from timm.models.vision_transformer import VisionTransformer  # noqa: PLC0415 - seconds of imports

    found, _ = encoder(network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
    assert isinstance(found, TimmEncoder)
    if isinstance(found.model, VisionTransformer):
        return TokenAutoencoder(found, setting.seed)
    if found.tokens or getattr(found.model, "output_fmt", "NCHW") == "NHWC":
        raise InputError(
            f"masked: network: {network} cannot leave patches out; choose a convolutional network or a plain vision "
            "transformer (VisionTransformer of timm), or another task"
        )
    return SparseAutoencoder(setting)
