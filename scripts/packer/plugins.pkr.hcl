# Packer 1.7 and newer fetch it by `packer init`; older ones have it built in and do not know this block.
packer {
  required_plugins {
    amazon = {
      version = ">= 1.2.8"
      source  = "github.com/hashicorp/amazon"
    }
  }
}
