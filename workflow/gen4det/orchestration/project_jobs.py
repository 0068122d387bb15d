"""Base class of the objects that the rules call."""

from gen4det.orchestration.downloads import Downloads
from gen4det.orchestration.foundation_jobs import FoundationJobs
from gen4det.orchestration.project import Project


class ProjectJobs:
    """A checked configuration.

    Methods of derived classes that take `wildcards` accept any object with the attributes they read.
    """

    def __init__(self, project: Project):
        self.project = project
        self.config = project.config
        self.results = project.config.results.rstrip("/")
        self.foundation = FoundationJobs(project.config.foundation_training, project.root)
        self.downloads = Downloads(project.config.downloads, project.root)
