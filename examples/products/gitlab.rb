gitlab_rails['omniauth_providers'] = [{
  name: 'openid_connect',
  label: 'WeChat',
  args: {
    name: 'openid_connect',
    scope: ['openid', 'profile', 'email'],
    response_type: 'code',
    issuer: 'https://auth.example.com',
    discovery: true,
    client_auth_method: 'basic',
    uid_field: 'sub',
    pkce: true,
    client_options: {
      identifier: 'gitlab',
      secret: '...',
      redirect_uri: 'https://gitlab.example.com/users/auth/openid_connect/callback'
    }
  }
}]
gitlab_rails['omniauth_allow_single_sign_on'] = ['openid_connect']
gitlab_rails['omniauth_block_auto_created_users'] = true # an administrator approves each new user
