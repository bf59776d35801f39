import torch

from matey.tokens.refinement import Refinement, refine


def test_a_steep_wave_is_split_and_a_large_gentle_one_is_not():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    steep = torch.sin(2 * x).where((x < 16) & (y < 16), 0)
    gentle = (3 * torch.sin(x / 10)).where(x >= 16, 0)
    fields, patches = (steep + gentle)[None, None, None, None], [(1, 1, 16, 16), (1, 1, 4, 4)]
    (split,) = refine(fields, patches, Refinement("fraction", 0.25, criterion="steepness"))
    assert split[0, 0].tolist() == [[True, False], [False, False]]
    (by_variance,) = refine(fields, patches, Refinement("fraction", 0.5))
    assert by_variance[0, 0].tolist() != split[0, 0].tolist()
