"""Styles: what makes an image of one domain look like one of another, its labels staying what they are."""

from fcnseg.data.styles.colours import ColourStatistics
from fcnseg.data.styles.fourier import Fourier

__all__ = ["ColourStatistics", "Fourier"]
