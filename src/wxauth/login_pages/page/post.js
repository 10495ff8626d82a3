// Posts the answer to the site (`response_mode=form_post`). Without scripts, the person presses the button.
document.querySelector('form').submit()
