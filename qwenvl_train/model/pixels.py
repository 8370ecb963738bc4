"""From the uint8 planes that workers cut to the pixels that the vision tower takes."""

import torch


class Pixels:
    """The conversion of uint8 planes to the float32 pixels that the published processor would return."""

    def __init__(self, image_processor):
        scale = 1 / image_processor.rescale_factor
        self.mean = torch.tensor(image_processor.image_mean)[:, None, None] * scale
        self.std = torch.tensor(image_processor.image_std)[:, None, None] * scale
        self.frames = image_processor.temporal_patch_size

    def __call__(self, planes: torch.Tensor, frame_pairs: torch.Tensor | None = None) -> torch.Tensor:
        """Convert planes [N, p*p*C] uint8 to pixels [P, C*t*p*p].

        Without `frame_pairs`, each plane serves as all t frames of its patch.
        """
        if self.mean.device != planes.device:
            self.mean, self.std = self.mean.to(planes.device), self.std.to(planes.device)
        # Reorder the values while they are bytes, which take a quarter of the memory of floats.
        x = planes.unflatten(1, (-1, 1, len(self.mean))).permute(0, 3, 2, 1).contiguous().float()
        x = (x - self.mean) / self.std
        if frame_pairs is None:
            return x.expand(-1, -1, self.frames, -1).flatten(1)
        return torch.cat([x.index_select(0, frame) for frame in frame_pairs.unbind(1)], dim=2).flatten(1)
