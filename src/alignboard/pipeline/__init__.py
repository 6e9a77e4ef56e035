"""Plans, their graph of jobs, and the services that commands and jobs share."""
