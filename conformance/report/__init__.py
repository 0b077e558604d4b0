"""What a run found, to be read: in a terminal and as Markdown (``text``), as a page (``html``), by a CI server (``junit``)."""
