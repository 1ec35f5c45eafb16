from .dbscan import DbscanClustering as DbscanClustering
from .dbscan import density_clusters as density_clusters
from .embedding import embed as embed
from .isosplit import is_unimodal as is_unimodal
from .isosplit import isosplit_recursive as isosplit_recursive
from .isosplit import split_locally as split_locally
from .snippets import detect_and_project as detect_and_project
from .snippets import fit_temporal_basis as fit_temporal_basis
