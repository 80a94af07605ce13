# `nix build`, `nix run . -- gcc -c x.c`, and the NixOS module `nixosModules.default`.
{
  description = "buildbee: a peer-to-peer compile farm and cache of an office's desktops";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "riscv64-linux"
      ];
      forAllSystems = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAllSystems (pkgs: rec {
        buildbee = pkgs.callPackage ./packaging/nix/package.nix { };
        default = buildbee;
      });

      overlays.default = final: _: { buildbee = final.callPackage ./packaging/nix/package.nix { }; };

      nixosModules.default =
        { pkgs, lib, ... }:
        {
          imports = [ ./packaging/nix/module.nix ];
          services.buildbee.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.buildbee;
        };
    };
}
