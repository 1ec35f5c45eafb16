"""Pictures of recordings, their units and what models make of them: matplotlib for papers, plotly to look around."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "accuracy": ["plot_accuracy_against_time"],
        "interactive_traces": ["interactive_traces"],
        "roi_map": ["plot_roi_map"],
        "roi_traces": ["plot_roi_traces"],
        "scores": ["plot_learning_curve", "plot_model_comparison", "plot_threshold_sweep"],
        "mel_pca": ["plot_mel_pca"],
        "snippets": ["plot_confusion", "plot_embedding", "plot_snippets"],
        "signal_to_signal": ["plot_filters", "plot_layers", "plot_rate_scores"],
        "sorting_summary": ["plot_sorting_summary"],
        "spike_triggered": ["plot_spike_triggered_average"],
    },
)
