occ user_oidc:provider wechat --clientid=nextcloud --clientsecret=... \
  --discoveryuri=https://auth.example.com/.well-known/openid-configuration \
  --scope="openid profile email roles" --unique-uid=0 --mapping-uid=sub --mapping-display-name=name --mapping-email=email \
  --mapping-groups=roles --group-provisioning=1 --group-whitelist-regex='/^staff$/' --group-restrict-login-to-whitelist=1
