"""Planning: what a load needs in replicas, partitions, brokers, disks and money, from measured costs."""
