from . import deconvolution as deconvolution
from . import detection as detection
from . import electrodes as electrodes
from . import evaluation as evaluation
from . import io as io
from . import networks as networks
from . import plotting as plotting
from . import preprocessing as preprocessing
from . import reporting as reporting
from . import rois as rois
from . import simulation as simulation
from . import training as training
from .io.image_sequence import read_image_sequence as read_image_sequence
from .io.line_scan import read_line_scan as read_line_scan
from .io.nwb_units import write_nwb_units as write_nwb_units
from .io.open_ephys import read_open_ephys as read_open_ephys
from .io.trace_files import traces_to_recording as traces_to_recording
from .io.voltage_imaging import read_voltage_imaging as read_voltage_imaging
from .reporting.page import report as report
from .rois.recipe import roi_traces as roi_traces

__version__: str
