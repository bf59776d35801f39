"""Scores values and second differences along each axis: rough errors count more than smooth ones."""

from matey.train.loss import Loss, shifted


class Curvature(Loss):
    halo = 1

    def squares(self, values, axes):
        here = shifted(values, axes, self.halo)
        total = here.square()
        for axis in axes:
            ahead, behind = (shifted(values, axes, self.halo, axis, step) for step in (1, -1))
            total = total + (ahead - 2 * here + behind).square()
        return total


CURVATURE = Curvature()
