"""HTTP shared by the services: problem documents, the vouched-for caller, fields, service clients."""
