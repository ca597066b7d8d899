"""Pages about runs, each a single file that opens from the disk and refers to nothing outside itself."""

from fcnseg.reports.comparison import write_comparison
from fcnseg.reports.finishing import finish, finish_stages, images_wanted
from fcnseg.reports.run_page import write_page

__all__ = ["finish", "finish_stages", "images_wanted", "write_comparison", "write_page"]
