# NixOS: the daemons as the units that all packages share. After a rebuild a machine joins by one command, as root:
# `buildbee-agent join TICKET`.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.buildbee;
  toml = pkgs.formats.toml { };

  daemon = description: port: {
    enable = lib.mkEnableOption description;
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether to let the other machines of the farm in, at TCP port ${toString port} and by multicast.";
    };
    settings = lib.mkOption {
      type = toml.type;
      default = { };
      description = "Keys of the settings file; the daemon's `help config` describes them.";
    };
  };

  # What NixOS adds to the unit of a daemon that the package has.
  service = name: {
    users.users.${name} = {
      isSystemUser = true;
      group = name;
      home = "/var/lib/${name}";
    };
    users.groups.${name} = { };
    systemd.services.${name} = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ config.environment.etc."buildbee/${lib.removePrefix "buildbee-" name}.toml".source ];
    };
    systemd.tmpfiles.rules = [ "d /var/lib/${name} 0700 ${name} ${name}" ];
    systemd.packages = [ cfg.package ];
    environment.systemPackages = [ cfg.package ];
  };
  # Of multicast DNS.
  mdnsPort = 5353;
in
{
  options.services.buildbee = {
    package = lib.mkOption {
      type = lib.types.package;
      description = "The package with all of buildbee's programs.";
    };
    client.enable = lib.mkEnableOption "the compiler wrapper for the users of this machine";
    agent = daemon "lending this machine's idle cores to a buildbee farm" 7471;
    coordinator = daemon "the coordinator of a buildbee farm" 7470;
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.client.enable { environment.systemPackages = [ cfg.package ]; })

    (lib.mkIf cfg.agent.enable (
      lib.mkMerge [
        (service "buildbee-agent")
        {
          services.buildbee.agent.settings.bwrap = lib.mkDefault "${pkgs.bubblewrap}/bin/bwrap";
          environment.etc."buildbee/agent.toml".source = toml.generate "agent.toml" cfg.agent.settings;
          systemd.paths.buildbee-agent.wantedBy = [ "paths.target" ];
          networking.firewall = lib.mkIf cfg.agent.openFirewall {
            allowedTCPPorts = [ 7471 ];
            allowedUDPPorts = [ mdnsPort ];
          };
        }
      ]
    ))

    (lib.mkIf cfg.coordinator.enable (
      lib.mkMerge [
        (service "buildbee-coordinator")
        {
          environment.etc."buildbee/coordinator.toml".source = toml.generate "coordinator.toml" cfg.coordinator.settings;
          networking.firewall = lib.mkIf cfg.coordinator.openFirewall {
            allowedTCPPorts = [ 7470 ];
            allowedUDPPorts = [ mdnsPort ];
          };
        }
      ]
    ))
  ];
}
